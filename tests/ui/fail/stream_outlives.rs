//! A stream of rows that outlives its connection.
//~ E0597
//~ says: `conn` does not live long enough

use futures_util::Stream;
use pointsman::prelude::*;
use ui::users;

pub async fn run(
    conn: Conn<Read>, // twin: conn: &Conn<Read>,
) -> QueryResult<impl Stream<Item = QueryResult<i32>>> {
    let conn = &conn;
    users::table.select(users::id).load_stream(conn).await
}
