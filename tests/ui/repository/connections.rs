//! A repository method that writes, on a connection that reads.
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`
//~ fixed: Conn<Read> => Conn<Write>

use diesel_async::AsyncPgConnection;
use fixture::Users;
use pointsman::prelude::*;
use pointsman::{CheckoutError, ReplicaSet};

//~ fail: a reference to a `Conn<Read>`
//~ says: the intent here is `Read`, not `Write`
pub async fn shared(conn: &Conn<Read>) -> QueryResult<usize> {
    conn.rename(1, "a").await
}

//~ fail: the reading view of a `Conn<Write>`
pub async fn view(conn: &Conn<Write>) -> QueryResult<usize> {
    let conn = conn.as_read(); // fixed: let conn = conn.as_write();
    conn.rename(1, "a").await
}

//~ fail: a connection that was checked out to read
pub async fn checked_out() -> QueryResult<usize> {
    let users = fixture::read().await; // fixed: let users = fixture::write().await;
    users.rename(1, "a").await
}

//~ fail: the result of `ReplicaSet::read`
pub async fn replica_set(set: &ReplicaSet) -> Result<(), CheckoutError> {
    let users = set.read().await?; // fixed: let users = set.write().await?;
    let _ = users.rename(1, "a").await;
    Ok(())
}

//~ fail: a bare connection that was borrowed to read
pub async fn borrowed(conn: &mut AsyncPgConnection) -> QueryResult<usize> {
    let users = Conn::<Read>::borrow_from(conn); // fixed: let users = Conn::<Write>::borrow_from(conn);
    users.rename(1, "a").await
}
