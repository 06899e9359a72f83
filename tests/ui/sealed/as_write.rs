//! The writing view of a `Conn<Read>`.
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`
//~ fixed: Conn<Read> => Conn<Write>

use pointsman::prelude::*;

//~ fail: `as_write`
pub fn shared(conn: &Conn<Read>) -> &Conn<Write> {
    conn.as_write()
}

//~ fail: `as_write_mut`
pub fn exclusive(conn: &mut Conn<Read>) -> &mut Conn<Write> {
    conn.as_write_mut()
}

//~ fail: `as_write`, by its path
pub fn path(conn: &Conn<Read>) -> &Conn<Write> {
    Conn::as_write(conn)
}

//~ fail: `as_write`, under a bound that never holds
pub fn bound(conn: &Conn<Read>) -> &Conn<Write>
where
    Read: Writable, // fixed: Write: Writable,
{
    conn.as_write() // fixed: unimplemented!("{conn:?}")
}
