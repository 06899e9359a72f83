//! A transaction borrows its connection exclusively, until it ends.

use fixture::users;
use pointsman::prelude::*;

//~ fail: a transaction on a shared reference
//~ E0596
//~ says: `conn` is a `&` reference, so it cannot be borrowed as mutable
pub async fn shared(
    conn: &Conn<Write>, // fixed: conn: &mut Conn<Write>,
) -> QueryResult<Vec<i32>> {
    conn.transaction(async |tx| users::table.select(users::id).load(tx).await).await
}

//~ fail: a transaction on the reading view, which is a shared reference
//~ E0596
//~ says: as mutable
pub async fn view(conn: &mut Conn<Write>) -> QueryResult<i64> {
    let conn = conn.as_read(); // fixed: let conn = conn.as_write_mut();
    conn.transaction(async |tx| users::table.count().get_result(tx).await).await
}

//~ fail: a statement past the open transaction
//~ E0502
//~ says: cannot borrow `*conn` as mutable because it is also borrowed as immutable
pub async fn bypassed(conn: &mut Conn<Write>) -> QueryResult<usize> {
    conn.transaction(async |tx| {
        let _ = tx.node();
        diesel::delete(users::table).execute(conn).await // fixed: diesel::delete(users::table).execute(tx).await
    })
    .await
}

//~ fail: the connection of a transaction, kept after its end
//~ none
//~ says: lifetime may not live long enough
pub async fn escapes(conn: &mut Conn<Write>) -> QueryResult<()> {
    let mut kept = None;
    conn.transaction(async |tx| {
        kept = Some(tx); // fixed: kept = Some(tx.node().to_owned());
        Ok::<_, diesel::result::Error>(())
    })
    .await?;
    drop(kept);
    Ok(())
}
