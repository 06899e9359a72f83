//! A cast between references.
//~ E0605
//~ says: non-primitive cast: `&Conn<Read>` as `&Conn<Write>`

use pointsman::prelude::*;

pub fn run(conn: &Conn<Read>) -> &Conn<Write> { // twin: pub fn run(conn: &Conn<Write>) -> &Conn<Read> {
    conn as &Conn<Write> // twin: conn.as_read()
}
