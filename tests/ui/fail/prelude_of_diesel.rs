//! Diesel's own prelude instead of ours.
//~ E0308
//~ E0277
//~ says: types differ in mutability

use diesel::prelude::*; // twin: use pointsman::prelude::*;
use diesel::result::QueryResult as Answer;
use pointsman::Conn as Connection;
use pointsman::Read as ReadIntent;
use ui::users;

pub async fn run(conn: &Connection<ReadIntent>) -> Answer<Vec<i32>> {
    users::table.select(users::id).load(conn).await
}
