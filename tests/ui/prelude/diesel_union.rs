//! Diesel's own `union`, imported beside the prelude; its type is private, so it is not known to only read.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`
//~ says: for `a.union(b)` import `pointsman::CombineDsl`

use fixture::users;
use pointsman::prelude::*;
use diesel::CombineDsl; // fixed: use pointsman::CombineDsl;

pub async fn run(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    users::table.select(users::id).union(users::table.select(users::id)).load(conn).await
}
