//! Diesel's own methods, which are not async.
//~ E0277
//~ says: `Conn<Read>: Connection` is not satisfied

use pointsman::prelude::*;
use ui::users;

pub fn run(
    conn: &mut Conn<Read>, // twin: conn: &mut PgLike,
) -> QueryResult<usize> {
    diesel::RunQueryDsl::execute(diesel::delete(users::table), conn)
}

pub type PgLike = diesel_async::async_connection_wrapper::AsyncConnectionWrapper<Conn<Write>>;
