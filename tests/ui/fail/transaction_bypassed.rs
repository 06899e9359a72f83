//! A statement past the transaction that is open on its connection.
//~ E0502
//~ says: cannot borrow `*conn` as mutable because it is also borrowed as immutable

use pointsman::prelude::*;
use ui::users;

pub async fn run(conn: &mut Conn<Write>) -> QueryResult<usize> {
    conn.transaction(async |tx| {
        let _ = tx.node();
        diesel::delete(users::table).execute(conn).await // twin: diesel::delete(users::table).execute(tx).await
    })
    .await
}
