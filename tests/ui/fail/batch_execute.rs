//! A batch of raw SQL.
//~ E0277
//~ says: a `Conn<Read>` does not lend its bare connection

use diesel_async::SimpleAsyncConnection;
use pointsman::prelude::*;

pub async fn run(
    conn: &mut Conn<Read>, // twin: conn: &mut Conn<Write>,
) -> QueryResult<()> {
    SimpleAsyncConnection::batch_execute(conn, "DELETE FROM users").await
}
