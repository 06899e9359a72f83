//! A lock that hides in a boxed query: Diesel boxes none.
//~ E0277
//~ says: BoxedDsl

use diesel::pg::Pg;
use pointsman::prelude::*;
use ui::users;

pub async fn run(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    let query = users::table.select(users::id).for_update(); // twin: let query = users::table.select(users::id);
    query.into_boxed::<Pg>().load(conn).await
}
