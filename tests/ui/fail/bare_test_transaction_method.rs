//! diesel-async's `begin_test_transaction`, as a method.
//~ E0599
//~ says: `begin_test_transaction`

use diesel_async::AsyncConnection;
use pointsman::prelude::*;

pub async fn run(
    conn: &mut Conn<Read>, // twin: conn: &mut Conn<Write>,
) -> QueryResult<()> {
    conn.begin_test_transaction().await
}
