//! A write on the view that reads of a connection that writes.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it

use pointsman::prelude::*;
use ui::users;

pub async fn run(conn: &Conn<Write>) -> QueryResult<usize> {
    let conn = conn.as_read(); // twin: let conn = conn.as_write();
    diesel::delete(users::table).execute(conn).await
}
