//! A write inside a transaction, in a function that is generic over the intent.
//~ E0277
//~ says: a `Conn<I>` cannot run this statement
//~ says: with the bound `Writable`

use pointsman::prelude::*;
use ui::users;

pub async fn run<I: Intent>(conn: &mut Conn<I>) -> QueryResult<usize> { // twin: pub async fn run<I: Writable>(conn: &mut Conn<I>) -> QueryResult<usize> {
    conn.transaction(async |tx| diesel::delete(users::table).execute(tx).await).await // twin: conn.transaction(async |tx| diesel::delete(users::table).execute(tx.as_write()).await).await
}
