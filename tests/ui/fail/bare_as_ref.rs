//! The bare connection by `AsRef`.
//~ E0599
//~ says: `as_ref`

use pointsman::prelude::*;
use ui::users;

pub async fn run(
    conn: &mut Conn<Read>, // twin: conn: &mut Conn<Write>,
) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), conn.as_ref()).await // twin: diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut **conn).await
}
