//! `save_changes` of a record.
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`
//~ fixed: Conn<Read> => Conn<Write>

use fixture::User;
use pointsman::prelude::*;

pub async fn run(conn: &Conn<Read>, user: &User) -> QueryResult<User> {
    user.save_changes(conn).await
}
