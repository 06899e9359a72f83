//! A repository method that writes, in a function that is generic over the intent.
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot
//~ says: the intent here is `I`, not `Write`
//~ says: put `where I: Writable` on the method, in the trait and in the impl; in a generic function, bound the intent: `I: Writable`

use fixture::Users;
use pointsman::prelude::*;

//~ fail: of a connection
pub async fn connection<I: Intent>(conn: &Conn<I>) -> QueryResult<usize> { // fixed: pub async fn connection<I: Writable>(conn: &Conn<I>) -> QueryResult<usize> {
    conn.rename(1, "a").await
}

//~ fail: of any repository
pub async fn any_repository<I: Intent>(users: &impl Users<I>) -> QueryResult<usize> { // fixed: pub async fn any_repository<I: Writable>(users: &impl Users<I>) -> QueryResult<usize> {
    users.rename(1, "a").await
}
