//! The WAL position that replicas must reach before their data can be compared.

use diesel::dsl::sql;
use diesel::sql_types::Text;

use crate::lsn::Lsn;
use crate::prelude::*;

/// Returns the end of all WAL written up to now.
pub(super) async fn written(conn: &Conn<Read>) -> QueryResult<Lsn> {
    // The insert position, because `pg_current_wal_lsn()` is behind it with `synchronous_commit = off`.
    let text: String =
        diesel::select(sql::<Text>("pg_catalog.pg_current_wal_insert_lsn()::text")).get_result(conn).await?;
    parsed(&text).map(Lsn::end_of_last_record)
}

/// Returns a standby's replayed position. On a primary, there is nothing to wait for.
pub(super) async fn replayed(conn: &Conn<Read>) -> QueryResult<Lsn> {
    let position = "CASE WHEN pg_catalog.pg_is_in_recovery() \
                    THEN coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0')::text \
                    ELSE 'FFFFFFFF/FFFFFFFF' END";
    let text: String = diesel::select(sql::<Text>(position)).get_result(conn).await?;
    parsed(&text)
}

fn parsed(text: &str) -> QueryResult<Lsn> {
    text.parse().map_err(|error| diesel::result::Error::DeserializationError(Box::new(error)))
}
