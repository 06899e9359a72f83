//! An `INSERT … ON CONFLICT` on a `Conn<Read>`.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`
//~ fixed: Conn<Read> => Conn<Write>

use fixture::{NewUser, users};
use pointsman::prelude::*;

//~ fail: DO NOTHING
pub async fn do_nothing(conn: &Conn<Read>) -> QueryResult<usize> {
    diesel::insert_into(users::table).values(NewUser { name: "a" }).on_conflict_do_nothing().execute(conn).await
}

//~ fail: DO UPDATE
pub async fn do_update(conn: &Conn<Read>) -> QueryResult<usize> {
    diesel::insert_into(users::table)
        .values((NewUser { name: "a" }, users::id.eq(1)))
        .on_conflict(users::id)
        .do_update()
        .set(users::name.eq("a"))
        .execute(conn)
        .await
}

//~ fail: DO UPDATE, with RETURNING
pub async fn returning(conn: &Conn<Read>) -> QueryResult<i32> {
    diesel::insert_into(users::table)
        .values((NewUser { name: "a" }, users::id.eq(1)))
        .on_conflict(users::id)
        .do_update()
        .set(users::name.eq(diesel::upsert::excluded(users::name)))
        .returning(users::id)
        .get_result(conn)
        .await
}
