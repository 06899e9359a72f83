//! Raw SQL, boxed.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`

use pointsman::prelude::*;

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) -> QueryResult<usize> {
    diesel::sql_query("DELETE FROM users").into_boxed::<diesel::pg::Pg>().execute(conn).await
}
