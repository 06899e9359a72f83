//! A SQL literal that is run as a separate statement.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`
//~ says: `assume_read_only(…)` around raw SQL

use pointsman::prelude::*;
use diesel::sql_types::Integer;

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) -> QueryResult<Vec<i32>> {
    diesel::dsl::sql::<Integer>("DELETE FROM users RETURNING id").load(conn).await
}
