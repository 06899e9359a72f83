//! The bare connection out of its field.
//~ E0616
//~ says: field `inner` of struct `Conn` is private

use pointsman::prelude::*;
use ui::users;

pub async fn run(
    conn: &mut Conn<Read>, // twin: conn: &mut Conn<Write>,
) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), conn.inner.lease.conn_mut()).await // twin: diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut **conn).await
}
