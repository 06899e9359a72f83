//! diesel-async's own methods on a pinned connection.
//~ E0277
//~ says: a `Conn<Read>` does not lend its bare connection
//~ says: import `pointsman::prelude::*` instead of

use pointsman::prelude::*;
use ui::users;

pub async fn run(
    mut conn: std::pin::Pin<Box<Conn<Read>>>, // twin: mut conn: std::pin::Pin<Box<Conn<Write>>>,
) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut conn).await
}
