//! diesel-async's own methods on a reference to a reference.
//~ E0277
//~ says: a `Conn<Read>` does not lend its bare connection
//~ says: import `pointsman::prelude::*` instead of

use pointsman::prelude::*;
use ui::users;

pub async fn run(
    mut conn: &mut Conn<Read>, // twin: mut conn: &mut Conn<Write>,
) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut conn).await
}
