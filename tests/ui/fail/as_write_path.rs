//! The view that writes, by its path.
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot

use pointsman::prelude::*;

pub fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) -> &Conn<Write> {
    Conn::as_write(conn)
}
