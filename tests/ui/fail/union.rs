//! A plain `union`, whose type Diesel keeps private.
//~ E0277
//~ says: this statement writes or locks rows, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`
//~ says: `SetOperation::union(a, b)` for `a.union(b)`

use pointsman::prelude::*;
use ui::users;

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) -> QueryResult<Vec<i32>> {
    users::table.select(users::id).union(users::table.select(users::id)).load(conn).await
}
