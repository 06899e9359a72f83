//! A lock on a boxed query: Diesel locks none.
//~ E0277
//~ says: LockingDsl

use diesel::pg::Pg;
use pointsman::prelude::*;
use ui::users;

pub async fn run(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    let query = users::table.select(users::id).into_boxed::<Pg>();
    query.for_update().load(conn).await // twin: query.load(conn).await
}
