//! Inserting a row and reading it back.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`

use pointsman::prelude::*;
use ui::{NewUser, User, users};

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) -> QueryResult<User> {
    diesel::insert_into(users::table).values(NewUser { name: "a" }).returning(User::as_select()).get_result(conn).await
}
