//! diesel-async's own methods on an exclusive reference.
//~ E0277
//~ says: a `Conn<Read>` does not lend its bare connection
//~ says: import `pointsman::prelude::*` instead of

use pointsman::prelude::*;
use ui::users;

pub async fn run(
    conn: &mut Conn<Read>, // twin: conn: &mut Conn<Write>,
) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), conn).await
}
