//! What is noted before a COMMIT, to find out afterwards whether it was carried out.

use std::sync::Arc;

use diesel::QueryableByName;
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel_async::AsyncPgConnection;
use tokio::time::Instant;

use crate::causal::Lsn;

/// A transaction whose outcome may have to be settled.
///
/// It holds the transaction's id and how far the log was when the id had been written to it. Ids are
/// not unique for ever: a server that lost the end of its log, by a crash or because a standby was
/// promoted that had not received it, gives them out again. The position tells whether a survivor knows *this* transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Doubt {
    /// Identity of the cluster.
    pub system_identifier: u64,
    /// The timeline on which the transaction ran.
    pub timeline: u32,
    /// The transaction's 64-bit id.
    pub transaction_id: u64,
    /// A position in the log after the transaction's first record.
    pub position: Lsn,
    /// Up to where the server had recovered when it started, if it had to.
    pub recovered_to: Option<Lsn>,
    /// The configured address of the node on which it ran: another node's timeline of the same number is another history.
    pub(crate) node: Arc<str>,
    /// When it was noted: recoveries that the set saw later may have lost the transaction.
    pub(crate) noted: Instant,
}

/// Where a server stands: what a doubt is noted from, and later compared with.
#[derive(QueryableByName)]
pub(crate) struct Standpoint {
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

const STANDPOINT: &str = "\
    SELECT (SELECT s.system_identifier FROM pg_catalog.pg_control_system() AS s) AS system_identifier, \
        pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) AS timeline, \
        pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text AS position, \
        pg_catalog.pg_last_wal_replay_lsn()::pg_catalog.text AS recovered_to, \
        pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text AS transaction_id";

impl Standpoint {
    /// Asks a primary where it stands.
    pub(crate) async fn of(mut conn: &AsyncPgConnection) -> QueryResult<Self> {
        diesel_async::RunQueryDsl::get_result(diesel::sql_query(STANDPOINT), &mut conn).await
    }

    /// The doubt about the transaction that is open on a node; `None` where it has written nothing, so that nothing is at stake.
    pub(crate) fn doubt(&self, node: Arc<str>) -> Option<Doubt> {
        Some(Doubt {
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
