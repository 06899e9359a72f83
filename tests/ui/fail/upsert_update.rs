//! Inserting a row, or updating the one that is there.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`

use pointsman::prelude::*;
use ui::{NewUser, users};

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) -> QueryResult<usize> {
    diesel::insert_into(users::table)
        .values((NewUser { name: "a" }, users::id.eq(1)))
        .on_conflict(users::id)
        .do_update()
        .set(users::name.eq("a"))
        .execute(conn)
        .await
}
