//! A lock in a boxed query, which Diesel itself refuses.
//~ E0277

use diesel::pg::Pg;
use fixture::users;
use pointsman::prelude::*;

//~ fail: a locked query that is boxed
//~ says: BoxedDsl
pub async fn lock_then_box(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    let query = users::table.select(users::id).for_update(); // fixed: let query = users::table.select(users::id);
    query.into_boxed::<Pg>().load(conn).await
}

//~ fail: a boxed query that is locked
//~ says: LockingDsl
pub async fn box_then_lock(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    let query = users::table.select(users::id).into_boxed::<Pg>();
    query.for_update().load(conn).await // fixed: query.load(conn).await
}
