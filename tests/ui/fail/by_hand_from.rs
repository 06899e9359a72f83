//! A `Conn` made from another.
//~ E0277
//~ says: the trait bound `Conn<Write>: From<Conn<Read>>` is not satisfied

use pointsman::prelude::*;

pub fn run(conn: Conn<Read>) -> Conn<Write> { // twin: pub fn run(conn: Conn<Write>) -> Conn<Write> {
    conn.into()
}
