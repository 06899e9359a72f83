//! A connection of a third intent.
//~ E0277
//~ says: `Admin` is not an intent: there are only `Read` and `Write`

use pointsman::prelude::*;

pub enum Admin {}

pub fn run(
    _conn: &Conn<Admin>, // twin: _conn: &Conn<Read>,
) {
}
