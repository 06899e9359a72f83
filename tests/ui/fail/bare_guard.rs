//! diesel-async's own methods on a connection behind a mutex.
//~ E0277
//~ says: a `Conn<Read>` does not lend its bare connection
//~ says: import `pointsman::prelude::*` instead of

use pointsman::prelude::*;
use ui::users;

pub async fn run(
    mut conn: tokio::sync::MutexGuard<'_, Conn<Read>>, // twin: mut conn: tokio::sync::MutexGuard<'_, Conn<Write>>,
) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut conn).await
}
