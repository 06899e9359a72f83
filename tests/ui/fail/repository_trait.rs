//! A method that writes, of any repository, in a function that is generic over the intent.
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot
//~ says: the intent here is `I`, not `Write`
//~ says: bound it by `Writable` in the place of `Intent`

use pointsman::prelude::*;
use ui::Users;

pub async fn run<I: Intent>(users: &impl Users<I>) -> QueryResult<usize> { // twin: pub async fn run<I: Writable>(users: &impl Users<I>) -> QueryResult<usize> {
    users.rename(1, "a").await
}
