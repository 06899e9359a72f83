//! Diesel's prelude beside ours. An import by name wins over both globs.
//~ E0308
//~ E0277
//~ says: types differ in mutability

use diesel::prelude::*;
use pointsman::prelude::*; // twin: use pointsman::prelude::{Conn, QueryResult, Read, RunQueryDsl};
use ui::users;

pub async fn run(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    users::table.select(users::id).load(conn).await
}
