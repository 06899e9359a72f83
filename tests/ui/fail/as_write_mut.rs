//! The exclusive view that writes, of a connection that reads.
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`

use pointsman::prelude::*;

pub fn run(
    conn: &mut Conn<Read>, // twin: conn: &mut Conn<Write>,
) -> &mut Conn<Write> {
    conn.as_write_mut()
}
