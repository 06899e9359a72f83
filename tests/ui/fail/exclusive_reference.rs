//! A write through an exclusive reference.
//~ E0277
//~ says: this statement writes or locks rows, so a `Conn<Read>` cannot run it

use pointsman::prelude::*;
use ui::users;

pub async fn run(
    conn: &mut Conn<Read>, // twin: conn: &mut Conn<Write>,
) -> QueryResult<usize> {
    diesel::delete(users::table).execute(conn).await
}
