//! The traits of the standard library beside the intents of the prelude; import them without their names.

use fixture::users;

//~ fail: imported by name, which hides the intents
//~ E0782
//~ says: expected a type, found a trait
pub mod by_name {
    use super::users;
    use pointsman::prelude::*;
    use std::io::{Read, Write}; // fixed: use std::io::{Read as _, Write as _};

    pub async fn run(conn: &Conn<Read>, mut from: std::fs::File, to: &mut Vec<u8>) -> QueryResult<Vec<i32>> {
        let mut text = String::new();
        let _ = (from.read_to_string(&mut text), to.write_all(text.as_bytes()));
        users::table.select(users::id).load(conn).await
    }
}

//~ fail: imported with a glob below the prelude's, where the names are ambiguous
//~ E0599
//~ says: no method named `read_to_string` found
pub mod by_glob {
    use super::users;
    use pointsman::prelude::*;
    use std::io::prelude::*; // fixed: use std::io::{Read as _, Write as _};

    pub async fn run(conn: &Conn<Read>, mut from: std::fs::File, to: &mut Vec<u8>) -> QueryResult<Vec<i32>> {
        let mut text = String::new();
        let _ = (from.read_to_string(&mut text), to.write_all(text.as_bytes()));
        users::table.select(users::id).load(conn).await
    }
}
