//! Both traits named `RunQueryDsl` in one module.
//~ E0034
//~ says: multiple applicable items in scope

use diesel_async::AsyncPgConnection;
use fixture::users;
use pointsman::prelude::*;
use diesel_async::RunQueryDsl as _; // fixed: // Each in a separate module.

pub async fn moved(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    users::table.select(users::id).load(conn).await
}

pub async fn caller(conn: &mut AsyncPgConnection) -> QueryResult<Vec<i32>> {
    moved(&Conn::borrow_from(conn)).await
}
