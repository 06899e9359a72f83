//! Writing on a bare connection that was borrowed to read.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it

use diesel_async::AsyncPgConnection;
use pointsman::prelude::*;
use ui::users;

pub async fn run(conn: &mut AsyncPgConnection) -> QueryResult<usize> {
    let conn = Conn::<Read>::borrow_from(conn); // twin: let conn = Conn::<Write>::borrow_from(conn);
    diesel::delete(users::table).execute(&conn).await
}
