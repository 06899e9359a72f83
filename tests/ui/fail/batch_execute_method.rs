//! A batch of raw SQL, as a method.
//~ E0599
//~ says: `batch_execute`

use diesel_async::SimpleAsyncConnection;
use pointsman::prelude::*;

pub async fn run(
    conn: &mut Conn<Read>, // twin: conn: &mut Conn<Write>,
) -> QueryResult<()> {
    conn.batch_execute("DELETE FROM users").await
}
