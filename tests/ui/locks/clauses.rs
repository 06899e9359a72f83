//! Each locking clause at the end of a `SELECT`.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`
//~ fixed: Conn<Read> => Conn<Write>

use fixture::users;
use pointsman::prelude::*;

//~ fail: FOR UPDATE
pub async fn for_update(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    users::table.select(users::id).for_update().load(conn).await
}

//~ fail: FOR UPDATE NOWAIT
pub async fn for_update_no_wait(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    users::table.select(users::id).for_update().no_wait().load(conn).await
}

//~ fail: FOR UPDATE SKIP LOCKED
pub async fn for_update_skip_locked(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    users::table.select(users::id).for_update().skip_locked().load(conn).await
}

//~ fail: FOR NO KEY UPDATE
pub async fn for_no_key_update(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    users::table.select(users::id).for_no_key_update().load(conn).await
}

//~ fail: FOR NO KEY UPDATE NOWAIT
pub async fn for_no_key_update_no_wait(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    users::table.select(users::id).for_no_key_update().no_wait().load(conn).await
}

//~ fail: FOR NO KEY UPDATE SKIP LOCKED
pub async fn for_no_key_update_skip_locked(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    users::table.select(users::id).for_no_key_update().skip_locked().load(conn).await
}

//~ fail: FOR SHARE
pub async fn for_share(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    users::table.select(users::id).for_share().load(conn).await
}

//~ fail: FOR SHARE NOWAIT
pub async fn for_share_no_wait(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    users::table.select(users::id).for_share().no_wait().load(conn).await
}

//~ fail: FOR SHARE SKIP LOCKED
pub async fn for_share_skip_locked(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    users::table.select(users::id).for_share().skip_locked().load(conn).await
}

//~ fail: FOR KEY SHARE
pub async fn for_key_share(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    users::table.select(users::id).for_key_share().load(conn).await
}

//~ fail: FOR KEY SHARE NOWAIT
pub async fn for_key_share_no_wait(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    users::table.select(users::id).for_key_share().no_wait().load(conn).await
}

//~ fail: FOR KEY SHARE SKIP LOCKED
pub async fn for_key_share_skip_locked(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    users::table.select(users::id).for_key_share().skip_locked().load(conn).await
}
