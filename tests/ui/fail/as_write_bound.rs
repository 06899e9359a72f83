//! A bound that no connection keeps.
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot

use pointsman::prelude::*;

pub fn run(conn: &Conn<Read>) -> &Conn<Write>
where
    Read: Writable, // twin: Write: Writable,
{
    conn.as_write() // twin: unimplemented!("{conn:?}")
}
