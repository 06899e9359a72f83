//! Combining on from a `SetOperation` with Diesel's method leaves its promise behind.
//~ E0277
//~ says: this statement writes or locks rows, so a `Conn<Read>` cannot run it

use pointsman::SetOperation;
use pointsman::prelude::*;
use ui::users;

pub async fn run(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    let ids = users::table.select(users::id);
    let both = SetOperation::union(ids, ids);
    let query = both.union(ids); // twin: let query = SetOperation::union(both, ids);
    query.load(conn).await
}
