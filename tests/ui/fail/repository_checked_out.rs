//! A method that writes, on a connection that was checked out to read.
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`

use pointsman::prelude::*;
use ui::Users;

pub async fn run() -> QueryResult<usize> {
    let users = ui::read().await; // twin: let users = ui::write().await;
    users.rename(1, "a").await
}
