//! Inserting through a reference to the statement.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`

use pointsman::prelude::*;
use ui::{NewUser, users};

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) -> QueryResult<i32> {
    let insert = diesel::insert_into(users::table).values(NewUser { name: "a" }).returning(users::id);
    (&insert).get_result(conn).await
}
