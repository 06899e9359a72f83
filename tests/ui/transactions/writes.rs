//! A write inside a transaction of a `Conn<Read>`.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`
//~ fixed: Conn<Read> => Conn<Write>

use fixture::users;
use pointsman::prelude::*;

//~ fail: in a transaction
pub async fn plain(conn: &mut Conn<Read>) -> QueryResult<usize> {
    conn.transaction(async |tx| diesel::delete(users::table).execute(tx).await).await
}

//~ fail: in a nested transaction
pub async fn nested(conn: &mut Conn<Read>) -> QueryResult<usize> {
    conn.transaction(async |tx| tx.transaction(async |tx| diesel::delete(users::table).execute(tx).await).await).await
}

//~ fail: in a transaction with an isolation level
pub async fn built(conn: &mut Conn<Read>) -> QueryResult<usize> {
    conn.build_transaction()
        .repeatable_read()
        .run(async |tx| diesel::delete(users::table).execute(tx).await)
        .await
}
