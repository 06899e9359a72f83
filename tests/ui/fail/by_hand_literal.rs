//! A `Conn` built by hand.
//~ E0616
//~ says: field `inner` of struct `Conn` is private

use pointsman::prelude::*;

pub fn run(conn: Conn<Read>) -> Conn<Write> { // twin: pub fn run(conn: Conn<Write>) -> Conn<Write> {
    Conn { inner: conn.inner, intent: std::marker::PhantomData } // twin: conn
}
