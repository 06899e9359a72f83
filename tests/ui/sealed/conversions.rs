//! A conversion from a `Conn<Read>` to a `Conn<Write>`, or from a view to an owned connection.

use pointsman::prelude::*;

//~ fail: `From`
//~ E0277
//~ says: the trait bound `Conn<Write>: From<Conn<Read>>` is not satisfied
//~ fixed: Conn<Read> => Conn<Write>
pub fn from(conn: Conn<Read>) -> Conn<Write> {
    conn.into()
}

//~ fail: `as`
//~ E0605
//~ says: non-primitive cast: `&Conn<Read>` as `&Conn<Write>`
pub fn cast(conn: &Conn<Read>) -> &Conn<Write> { // fixed: pub fn cast(conn: &Conn<Write>) -> &Conn<Read> {
    conn as &Conn<Write> // fixed: conn.as_read()
}

//~ fail: this crate's own cast between the views
//~ E0624
//~ says: associated function `view` is private
pub fn view(conn: &Conn<Write>) -> &Conn<Read> {
    let _ = Conn::<Write>::view; // fixed: let _ = Conn::<Write>::node;
    conn.as_read()
}

//~ fail: `to_owned` of a view
//~ E0308
//~ says: expected `Conn<Read>`, found `&Conn<Read>`
pub fn to_owned(conn: &Conn<Read>) -> Conn<Read> { // fixed: pub fn to_owned(conn: Conn<Read>) -> Conn<Read> {
    conn.to_owned() // fixed: conn
}

//~ fail: an argument of a function that takes a `Conn<Write>`
//~ E0308
//~ says: expected `&Conn<Write>`, found `&Conn<Read>`
//~ fixed: Conn<Read> => Conn<Write>
pub async fn record(_conn: &Conn<Write>) {}

pub async fn argument(conn: &Conn<Read>) {
    record(conn).await;
}
