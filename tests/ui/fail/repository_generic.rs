//! A method that writes, in a function that is generic over the intent.
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot
//~ says: the intent here is `I`, not `Write`
//~ says: bound it by `Writable` in the place of `Intent`

use pointsman::prelude::*;
use ui::Users;

pub async fn run<I: Intent>(conn: &Conn<I>) -> QueryResult<usize> { // twin: pub async fn run<I: Writable>(conn: &Conn<I>) -> QueryResult<usize> {
    conn.rename(1, "a").await
}
