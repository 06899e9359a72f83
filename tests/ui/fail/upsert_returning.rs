//! Inserting or updating a row, and reading it back.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`

use pointsman::prelude::*;
use ui::{NewUser, users};

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) -> QueryResult<i32> {
    diesel::insert_into(users::table)
        .values((NewUser { name: "a" }, users::id.eq(1)))
        .on_conflict(users::id)
        .do_update()
        .set(users::name.eq(diesel::upsert::excluded(users::name)))
        .returning(users::id)
        .get_result(conn)
        .await
}
