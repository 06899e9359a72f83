//! A `Conn` built from the rest of another.
//~ E0308
//~ says: expected `Conn<Write>`, found `Conn<Read>`

use pointsman::prelude::*;

pub fn run(conn: Conn<Read>) -> Conn<Write> { // twin: pub fn run(conn: Conn<Write>) -> Conn<Write> {
    Conn::<Write> { ..conn } // twin: conn
}
