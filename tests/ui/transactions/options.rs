//! A transaction option that only the primary offers, on a `Conn<Read>`.
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`
//~ fixed: Conn<Read> => Conn<Write>

use fixture::users;
use pointsman::prelude::*;

//~ fail: `serializable`
pub async fn serializable(conn: &mut Conn<Read>) -> QueryResult<i64> {
    conn.build_transaction()
        .serializable()
        .run(async |tx| users::table.count().get_result(tx).await)
        .await
}

//~ fail: `deferrable`
pub async fn deferrable(conn: &mut Conn<Read>) -> QueryResult<i64> {
    conn.build_transaction()
        .deferrable()
        .run(async |tx| users::table.count().get_result(tx).await)
        .await
}

//~ fail: `read_write`
pub async fn read_write(conn: &mut Conn<Read>) -> QueryResult<i64> {
    conn.build_transaction()
        .read_write()
        .run(async |tx| users::table.count().get_result(tx).await)
        .await
}
