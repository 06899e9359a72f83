//! Raw SQL that is loaded: its type cannot say whether it only reads.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`
//~ says: `assume_read_only(…)` around raw SQL

use pointsman::prelude::*;
use ui::Count;

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) -> QueryResult<Vec<Count>> {
    diesel::sql_query("SELECT count(*) FROM users").load(conn).await
}
