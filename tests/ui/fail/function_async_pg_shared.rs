//! A function that takes `&AsyncPgConnection`.
//~ E0308
//~ says: expected `&AsyncPgConnection`, found `&Conn<Read>`

use diesel_async::AsyncPgConnection;
use pointsman::prelude::*;

pub async fn legacy(_conn: &AsyncPgConnection) {}

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) {
    legacy(conn).await;
}
