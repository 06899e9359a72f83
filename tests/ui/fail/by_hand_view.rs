//! The cast between the views.
//~ E0624
//~ says: associated function `view` is private

use pointsman::prelude::*;

pub fn run(conn: &Conn<Write>) -> &Conn<Read> {
    let _ = Conn::<Write>::view; // twin: let _ = Conn::<Write>::node;
    conn.as_read()
}
