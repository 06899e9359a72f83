//! A statement in a function that is generic over the intent.
//~ E0277
//~ says: a `Conn<I>` cannot run this statement
//~ says: run reads on `conn.as_read()`, and writes on `conn.as_write()` with the bound `Writable`

use pointsman::prelude::*;
use ui::users;

pub async fn run<I: Intent>(conn: &Conn<I>) -> QueryResult<usize> { // twin: pub async fn run<I: Writable>(conn: &Conn<I>) -> QueryResult<usize> {
    diesel::delete(users::table).execute(conn).await // twin: diesel::delete(users::table).execute(conn.as_write()).await
}
