//! A method that writes, of a repository on a connection that reads.
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot
//~ says: the intent here is `Read`, not `Write`
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`

use pointsman::prelude::*;
use ui::Users;

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) -> QueryResult<usize> {
    conn.rename(1, "a").await
}
