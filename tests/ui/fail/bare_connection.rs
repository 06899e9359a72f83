//! The bare connection by the method that is this crate's own.
//~ E0624
//~ says: method `connection` is private

use pointsman::prelude::*;
use ui::users;

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut conn.connection()?).await // twin: diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut &**conn).await
}
