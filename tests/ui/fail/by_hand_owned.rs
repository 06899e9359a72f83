//! An owned connection out of a view.
//~ E0308
//~ says: expected `Conn<Read>`, found `&Conn<Read>`

use pointsman::prelude::*;

pub fn run(conn: &Conn<Read>) -> Conn<Read> { // twin: pub fn run(conn: Conn<Read>) -> Conn<Read> {
    conn.to_owned() // twin: conn
}
