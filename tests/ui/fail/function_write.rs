//! A function that takes a connection that writes.
//~ E0308
//~ says: expected `&Conn<Write>`, found `&Conn<Read>`

use pointsman::prelude::*;

pub async fn record(_conn: &Conn<Write>) {}

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) {
    record(conn).await;
}
