//! Locking rows with FOR KEY SHARE NOWAIT.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`

use pointsman::prelude::*;
use ui::users;

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) -> QueryResult<Vec<i32>> {
    users::table.select(users::id).for_key_share().no_wait().load(conn).await
}
