//! A `serializable` transaction where only the primary offers one.
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`

use pointsman::prelude::*;
use ui::users;

pub async fn run(
    conn: &mut Conn<Read>, // twin: conn: &mut Conn<Write>,
) -> QueryResult<i64> {
    conn.build_transaction()
        .serializable()
        .run(async |tx| users::table.count().get_result(tx).await)
        .await
}
