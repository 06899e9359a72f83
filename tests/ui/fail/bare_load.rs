//! diesel-async's `load`, of a write with RETURNING.
//~ E0277
//~ says: a `Conn<Read>` does not lend its bare connection

use pointsman::prelude::*;
use ui::users;

pub async fn run(
    conn: &mut Conn<Read>, // twin: conn: &mut Conn<Write>,
) -> QueryResult<Vec<i32>> {
    diesel_async::RunQueryDsl::load(diesel::delete(users::table).returning(users::id), conn).await
}
