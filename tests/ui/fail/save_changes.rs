//! Saving a record's changes.
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`

use pointsman::prelude::*;
use ui::User;

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
    user: &User,
) -> QueryResult<User> {
    user.save_changes(conn).await
}
