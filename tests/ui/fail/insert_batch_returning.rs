//! Inserting many rows and reading them back.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`

use pointsman::prelude::*;
use ui::{NewUser, users};

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) -> QueryResult<Vec<i32>> {
    diesel::insert_into(users::table).values(vec![NewUser { name: "a" }]).returning(users::id).load(conn).await
}
