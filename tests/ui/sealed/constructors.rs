//! A `Conn` that is constructed by hand.

use pointsman::prelude::*;

//~ fail: this crate's own constructor
//~ E0624
//~ says: associated function `new` is private
pub fn new() {
    let _ = Conn::<Write>::new; // fixed: let _ = Conn::<Write>::node;
}

//~ fail: `Default`
//~ E0277
//~ says: the trait bound `Conn<Write>: Default` is not satisfied
pub async fn default() -> Conn<Write> {
    Default::default() // fixed: fixture::write().await
}

//~ fail: a struct literal
//~ E0616
//~ says: field `inner` of struct `Conn` is private
//~ fixed: Conn<Read> => Conn<Write>
//~ fixed: Conn { inner: conn.inner, intent: std::marker::PhantomData } => conn
pub fn literal(conn: Conn<Read>) -> Conn<Write> {
    Conn { inner: conn.inner, intent: std::marker::PhantomData }
}

//~ fail: a struct literal with the rest of another `Conn`
//~ E0308
//~ says: expected `Conn<Write>`, found `Conn<Read>`
//~ fixed: Conn<Read> => Conn<Write>
//~ fixed: Conn::<Write> { ..conn } => conn
pub fn update(conn: Conn<Read>) -> Conn<Write> {
    Conn::<Write> { ..conn }
}

//~ fail: `Clone`: a second handle on one connection
//~ E0599
//~ says: no method named `clone` found
pub fn clone(conn: Conn<Read>) -> Conn<Read> {
    conn.clone() // fixed: conn
}
