//! A function that takes `&mut AsyncPgConnection`.
//~ E0308
//~ says: expected `&mut AsyncPgConnection`, found `&mut Conn<Read>`

use diesel_async::AsyncPgConnection;
use pointsman::prelude::*;

pub async fn legacy(_conn: &mut AsyncPgConnection) {}

pub async fn run(
    conn: &mut Conn<Read>, // twin: conn: &mut Conn<Write>,
) {
    legacy(conn).await;
}
