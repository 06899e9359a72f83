//! A method that writes, in a function that is generic over the intent.
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot
//~ says: the intent here is `I`, not `Write`
//~ says: put `where I: Writable` on the method, in the trait and in the impl; in a generic function, bound the intent: `I: Writable`

use pointsman::prelude::*;
use ui::Users;

pub async fn run<I: Intent>(conn: &Conn<I>) -> QueryResult<usize> { // twin: pub async fn run<I: Writable>(conn: &Conn<I>) -> QueryResult<usize> {
    conn.rename(1, "a").await
}
