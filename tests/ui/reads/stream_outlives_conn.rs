//! A stream of rows that outlives its connection.
//~ E0597
//~ says: `conn` does not live long enough

use fixture::users;
use futures_util::Stream;
use pointsman::prelude::*;

pub async fn run(
    conn: Conn<Read>, // fixed: conn: &Conn<Read>,
) -> QueryResult<impl Stream<Item = QueryResult<i32>>> {
    let conn = &conn;
    users::table.select(users::id).load_stream(conn).await
}
