//! Diesel's prelude beside ours; an import by name takes precedence over both globs.
//~ E0308
//~ E0277
//~ says: types differ in mutability

use diesel::prelude::*;
use fixture::users;
use pointsman::prelude::*; // fixed: use pointsman::prelude::{Conn, QueryResult, Read, RunQueryDsl};

pub async fn run(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    users::table.select(users::id).load(conn).await
}
