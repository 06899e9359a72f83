//! Writing on a connection that was turned into one that reads.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it

use pointsman::prelude::*;
use ui::users;

pub async fn run(conn: Conn<Write>) -> QueryResult<usize> {
    let conn = conn.into_read(); // twin: let _ = &conn;
    diesel::delete(users::table).execute(&conn).await
}
