//! diesel-async's own methods on a connection that is shared.
//~ E0277
//~ says: `Arc<Conn<Read>>

use pointsman::prelude::*;
use ui::users;

pub async fn run(
    mut conn: std::sync::Arc<Conn<Read>>, // twin: mut conn: Box<Conn<Write>>,
) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut conn).await
}
