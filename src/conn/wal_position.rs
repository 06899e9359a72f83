//! The record made before a COMMIT, to find out afterwards if it succeeded.

use std::sync::Arc;

use diesel::QueryableByName;
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel_async::AsyncPgConnection;
use tokio::time::Instant;

use crate::error::InDoubt;
use crate::lsn::Lsn;
use crate::wire::Note;

/// A position in a server's log, recorded before a COMMIT and compared later.
#[derive(QueryableByName)]
pub(crate) struct WalPosition {
    #[diesel(sql_type = BigInt)]
    system_identifier: i64,
    #[diesel(sql_type = Text)]
    timeline: String,
    #[diesel(sql_type = Text)]
    position: String,
    #[diesel(sql_type = Nullable<Text>)]
    recovered_to: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    transaction_id: Option<String>,
}

const WAL_POSITION: &str = "\
    SELECT (SELECT s.system_identifier FROM pg_catalog.pg_control_system() AS s) AS system_identifier, \
        pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) AS timeline, \
        pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text AS position, \
        pg_catalog.pg_last_wal_replay_lsn()::pg_catalog.text AS recovered_to, \
        pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text AS transaction_id";

impl InDoubt {
    /// Creates the record of an open transaction from the note of its statements.
    pub(super) fn noted(note: Note, node: Arc<str>) -> Self {
        Self {
            node,
            transaction_id: note.transaction_id,
            system_identifier: note.origin.system_identifier,
            timeline: note.origin.timeline,
            position: note.position,
            recovered_to: note.origin.recovered_to,
            noted: note.began,
        }
    }
}

impl WalPosition {
    /// Asks a primary for its position.
    pub(crate) async fn of(mut conn: &AsyncPgConnection) -> QueryResult<Self> {
        diesel_async::RunQueryDsl::get_result(diesel::sql_query(WAL_POSITION), &mut conn).await
    }

    /// Returns the open transaction of a node, if it has written something.
    pub(crate) fn in_doubt(&self, node: Arc<str>) -> Option<InDoubt> {
        Some(InDoubt {
            node,
            transaction_id: self.transaction_id.as_deref()?.parse().ok()?,
            system_identifier: self.system_identifier(),
            timeline: self.timeline(),
            position: self.position.parse().ok()?,
            recovered_to: self.recovered_to(),
            noted: Instant::now(),
        })
    }

    pub(crate) fn system_identifier(&self) -> u64 {
        self.system_identifier.cast_unsigned()
    }

    pub(crate) fn timeline(&self) -> u32 {
        u32::from_str_radix(&self.timeline, 16).unwrap_or_default()
    }

    pub(crate) fn recovered_to(&self) -> Option<Lsn> {
        self.recovered_to.as_deref().and_then(|lsn| lsn.parse().ok())
    }
}
