//! The WAL position that replicas must reach before their data can be compared.

use diesel::dsl::sql;
use diesel::sql_types::Text;

use crate::lsn::Lsn;
use crate::prelude::*;

/// The size of a page of the write-ahead log, and of its two kinds of headers.
const PAGE: u64 = 8192;
const HEADERS: [u64; 2] = [24, 40];

/// Returns the end of all WAL written up to now.
pub(super) async fn written(conn: &Conn<Read>) -> QueryResult<Lsn> {
    // The insert position, because `pg_current_wal_lsn()` is behind it with `synchronous_commit = off`.
    let text: String =
        diesel::select(sql::<Text>("pg_catalog.pg_current_wal_insert_lsn()::text")).get_result(conn).await?;
    parsed(&text).map(end_of_last_record)
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

/// Subtracts the page header from the position where the *next* record will begin.
///
/// At the end of a page the insert position already points behind the header of the next one. A standby that has
/// replayed everything reports that position only when more is written.
fn end_of_last_record(insert: Lsn) -> Lsn {
    let beyond = insert.as_u64() % PAGE;
    if HEADERS.contains(&beyond) { Lsn::new(insert.as_u64() - beyond) } else { insert }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_behind_a_page_header_is_the_end_of_the_page_before() {
        for (insert, end) in
            [(3 * PAGE + 24, 3 * PAGE), ((1 << 24) + 40, 1 << 24), (3 * PAGE + 32, 3 * PAGE + 32)]
        {
            assert_eq!(end_of_last_record(Lsn::new(insert)), Lsn::new(end));
        }
    }
}
