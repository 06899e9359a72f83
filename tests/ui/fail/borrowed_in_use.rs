//! The bare connection, while it is borrowed.
//~ E0499
//~ says: cannot borrow `*conn` as mutable more than once at a time

use diesel_async::AsyncPgConnection;
use pointsman::prelude::*;
use ui::users;

pub async fn run(conn: &mut AsyncPgConnection) -> QueryResult<i64> {
    let borrowed = Conn::<Read>::borrow_from(conn);
    diesel_async::SimpleAsyncConnection::batch_execute(conn, "SELECT 1").await?; // twin: // Nothing.
    users::table.count().get_result(&borrowed).await
}
