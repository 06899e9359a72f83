//! A second handle on one connection.
//~ E0599
//~ says: no method named `clone` found

use pointsman::prelude::*;

pub fn run(conn: Conn<Read>) -> Conn<Read> {
    conn.clone() // twin: conn
}
