//! The traits of the standard library hide the intents of the prelude; import them without their names.
//~ E0782
//~ says: expected a type, found a trait

use fixture::users;
use pointsman::prelude::*;
use std::io::{Read, Write}; // fixed: use std::io::{Read as _, Write as _};

pub async fn run(conn: &Conn<Read>, mut from: std::fs::File, to: &mut Vec<u8>) -> QueryResult<Vec<i32>> {
    let mut text = String::new();
    let _ = (from.read_to_string(&mut text), to.write_all(text.as_bytes()));
    users::table.select(users::id).load(conn).await
}
