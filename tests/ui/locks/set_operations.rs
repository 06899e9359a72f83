//! A set operation that locks the rows of one side.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it

use fixture::users;
use pointsman::prelude::*;

//~ fail: the left side
pub async fn left(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    let plain = users::table.select(users::id);
    let locked = users::table.select(users::id).for_update(); // fixed: let locked = users::table.select(users::id);
    locked.union(plain).load(conn).await
}

//~ fail: the right side
pub async fn right(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    let plain = users::table.select(users::id);
    let locked = users::table.select(users::id).for_update(); // fixed: let locked = users::table.select(users::id);
    plain.union(locked).load(conn).await
}

//~ fail: a set operation that is one side of another
pub async fn combined(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    let ids = users::table.select(users::id);
    let locked = users::table.select(users::id).for_share(); // fixed: let locked = users::table.select(users::id);
    ids.union(ids.except(locked)).union(ids).load(conn).await
}
