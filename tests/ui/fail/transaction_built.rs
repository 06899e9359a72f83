//! A write inside a transaction with an isolation level that reads.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it

use pointsman::prelude::*;
use ui::users;

pub async fn run(
    conn: &mut Conn<Read>, // twin: conn: &mut Conn<Write>,
) -> QueryResult<usize> {
    conn.build_transaction()
        .repeatable_read()
        .run(async |tx| diesel::delete(users::table).execute(tx).await)
        .await
}
