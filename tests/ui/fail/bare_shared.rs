//! diesel-async's own methods on a shared reference.
//~ E0277
//~ says: a `Conn<Read>` does not lend its bare connection
//~ says: import `pointsman::prelude::*` instead of

use pointsman::prelude::*;
use ui::users;

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut &*conn).await // twin: diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut &**conn).await
}
