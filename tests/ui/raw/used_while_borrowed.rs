//! The bare connection, used while it is borrowed.
//~ E0499
//~ says: cannot borrow `*conn` as mutable more than once at a time

use diesel_async::AsyncPgConnection;
use fixture::users;
use pointsman::prelude::*;

pub async fn run(conn: &mut AsyncPgConnection) -> QueryResult<i64> {
    let borrowed = Conn::<Read>::borrow_from(conn);
    diesel_async::SimpleAsyncConnection::batch_execute(conn, "SELECT 1").await?; // fixed: // Nothing.
    users::table.count().get_result(&borrowed).await
}
