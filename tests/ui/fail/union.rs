//! Diesel's own `union`, imported beside the prelude: its type is private, so it cannot be known to only read.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`
//~ says: for `a.union(b)` import `pointsman::CombineDsl`

use diesel::CombineDsl; // twin: use pointsman::CombineDsl;
use pointsman::prelude::*;
use ui::users;

pub async fn run(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    users::table.select(users::id).union(users::table.select(users::id)).load(conn).await
}
