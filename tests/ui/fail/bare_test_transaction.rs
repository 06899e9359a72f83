//! diesel-async's `begin_test_transaction`.
//~ E0277
//~ says: a `Conn<Read>` does not lend its bare connection

use diesel_async::AsyncConnection;
use pointsman::prelude::*;

pub async fn run(
    conn: &mut Conn<Read>, // twin: conn: &mut Conn<Write>,
) -> QueryResult<()> {
    AsyncConnection::begin_test_transaction(conn).await
}
