//! Raw SQL with a parameter.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`
//~ says: put `assume_read_only(…)` around raw SQL
//~ never says: multiple different versions of crate `diesel`

use pointsman::prelude::*;
use diesel::sql_types::Integer;

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) -> QueryResult<usize> {
    diesel::sql_query("DELETE FROM users WHERE id = $1").bind::<Integer, _>(1).execute(conn).await
}
