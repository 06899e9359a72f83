//! A batch of raw SQL, on a shared reference.
//~ E0277
//~ says: a `Conn<Read>` does not lend its bare connection

use std::ops::Deref;

use diesel_async::SimpleAsyncConnection;
use pointsman::prelude::*;

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) -> QueryResult<()> {
    (&mut Deref::deref(conn)).batch_execute("DELETE FROM users").await
}
