//! A method that writes, of any repository, in a function that is generic over the intent.
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot
//~ says: the intent here is `I`, not `Write`
//~ says: put `where I: Writable` on the method, in the trait and in the impl; in a generic function, bound the intent: `I: Writable`

use pointsman::prelude::*;
use ui::Users;

pub async fn run<I: Intent>(users: &impl Users<I>) -> QueryResult<usize> { // twin: pub async fn run<I: Writable>(users: &impl Users<I>) -> QueryResult<usize> {
    users.rename(1, "a").await
}
