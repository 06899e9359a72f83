//! Diesel's own prelude instead of ours.
//~ E0308
//~ E0277
//~ says: types differ in mutability

use diesel::result::QueryResult as Answer;
use fixture::users;
use pointsman::Conn as Connection;
use pointsman::Read as ReadIntent;
use diesel::prelude::*; // fixed: use pointsman::prelude::*;

pub async fn run(conn: &Connection<ReadIntent>) -> Answer<Vec<i32>> {
    users::table.select(users::id).load(conn).await
}
