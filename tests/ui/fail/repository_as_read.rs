//! A method that writes, on the view that reads.
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`

use pointsman::prelude::*;
use ui::Users;

pub async fn run(conn: &Conn<Write>) -> QueryResult<usize> {
    let conn = conn.as_read(); // twin: let conn = conn.as_write();
    conn.rename(1, "a").await
}
