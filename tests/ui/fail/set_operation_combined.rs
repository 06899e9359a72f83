//! A lock hides in a set operation that is a side of another one.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it

use pointsman::prelude::*;
use ui::users;

pub async fn run(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    let ids = users::table.select(users::id);
    let locked = users::table.select(users::id).for_share(); // twin: let locked = users::table.select(users::id);
    ids.union(ids.except(locked)).union(ids).load(conn).await
}
