//! A function that takes any `AsyncConnection`.
//~ E0277
//~ says: the trait bound `Conn<Read>: AsyncConnection` is not satisfied

use diesel::pg::Pg;
use diesel_async::AsyncConnection;
use pointsman::prelude::*;

pub async fn legacy<C: AsyncConnection<Backend = Pg>>(_conn: &mut C) {}

pub async fn run(
    conn: &mut Conn<Read>, // twin: conn: &mut Conn<Write>,
) {
    legacy(conn).await;
}
