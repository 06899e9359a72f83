//! The way back from a `Conn<Read>` to the bare connection that was borrowed.
//~ E0277
//~ says: a `Conn<Read>` does not lend its bare connection

use diesel_async::AsyncPgConnection;
use pointsman::prelude::*;
use ui::users;

pub async fn run(conn: &mut AsyncPgConnection) -> QueryResult<usize> {
    let mut conn = Conn::<Read>::borrow_from(conn); // twin: let mut conn = Conn::<Write>::borrow_from(conn);
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut *conn).await
}
