//! The wrapper that makes an async connection a blocking one.
//~ E0277
//~ says: the trait bound `Conn<Read>: AsyncConnection` is not satisfied

use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use pointsman::prelude::*;

pub fn run(
    conn: Conn<Read>, // twin: conn: Conn<Write>,
) {
    blocking(conn);
}

pub fn blocking<C: diesel_async::AsyncConnection<Backend = diesel::pg::Pg> + 'static>(conn: C) {
    let _ = AsyncConnectionWrapper::<C>::from(conn);
}
