//! The bare connection by dereference.
//~ E0614
//~ says: type `Conn<Read>` cannot be dereferenced

use pointsman::prelude::*;
use ui::users;

pub async fn run(
    conn: &mut Conn<Read>, // twin: conn: &mut Conn<Write>,
) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut **conn).await
}
