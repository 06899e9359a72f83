//! One look at a node: one query, with nothing that needs a privilege.

use std::time::Duration;

use diesel::QueryableByName;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use diesel_async::RunQueryDsl;
use tokio::time::Instant;

use super::patience::within;
use crate::causal::Lsn;
use crate::link::Link;
use crate::topology::{Evidence, Loss};

/// Everything is qualified, operators too, so that no `search_path` puts something else in its place. The timeline comes from
/// the name of the WAL file that a primary writes: its control file shows the old one until the
/// next checkpoint, long after a promotion. A standby has no better source than that file without privileges.
/// A primary's position is what it has flushed: a standby cannot get more.
const QUERY: &str = "\
    SELECT r.in_recovery, s.system_identifier, \
        CASE WHEN r.in_recovery THEN NULL \
            ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) \
        END AS wal_timeline, \
        (SELECT c.timeline_id::pg_catalog.int8 FROM pg_catalog.pg_control_checkpoint() AS c) AS checkpoint_timeline, \
        (CASE WHEN r.in_recovery THEN pg_catalog.pg_last_wal_replay_lsn() \
            ELSE pg_catalog.pg_current_wal_flush_lsn() END)::pg_catalog.text AS position, \
        (CASE WHEN r.in_recovery THEN pg_catalog.pg_last_wal_receive_lsn() END)::pg_catalog.text AS received, \
        (CASE WHEN NOT r.in_recovery THEN pg_catalog.pg_last_wal_replay_lsn() END)::pg_catalog.text AS recovered_to, \
        EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver AS w WHERE w.pid IS NOT NULL) AS streaming, \
        CASE WHEN r.in_recovery THEN pg_catalog.pg_is_wal_replay_paused() ELSE false END AS replay_paused, \
        (extract(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) \
            pg_catalog.pg_last_xact_replay_timestamp()) OPERATOR(pg_catalog.*) 1000) \
            ::pg_catalog.int8 AS replay_age_ms \
    FROM (SELECT pg_catalog.pg_is_in_recovery() AS in_recovery) AS r, pg_catalog.pg_control_system() AS s";

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Bool)]
    in_recovery: bool,
    #[diesel(sql_type = BigInt)]
    system_identifier: i64,
    #[diesel(sql_type = Nullable<Text>)]
    wal_timeline: Option<String>,
    #[diesel(sql_type = BigInt)]
    checkpoint_timeline: i64,
    #[diesel(sql_type = Nullable<Text>)]
    position: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    received: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    recovered_to: Option<String>,
    #[diesel(sql_type = Bool)]
    streaming: bool,
    #[diesel(sql_type = Bool)]
    replay_paused: bool,
    #[diesel(sql_type = Nullable<BigInt>)]
    replay_age_ms: Option<i64>,
}

/// Asks a node for its state.
///
/// # Errors
///
/// Why there is no answer; the link must not be used again then.
pub(super) async fn look(link: &Link, limit: Duration) -> Result<Evidence, Loss> {
    // Sent now, so it is at least as fresh as this.
    let at = Instant::now();
    let rows = diesel::sql_query(QUERY).get_result::<Row>(&mut link.conn());
    let row = match within(limit, rows).await {
        None => return Err(Loss::TimedOut { limit }),
        Some(Err(_)) if link.is_over() => return Err(Loss::Disconnected),
        Some(Err(Error::DatabaseError(DatabaseErrorKind::UnableToSendCommand, _))) => {
            return Err(Loss::Disconnected);
        }
        Some(Err(error)) => return Err(Loss::Failed { message: error.to_string() }),
        Some(Ok(row)) => row,
    };
    row.evidence(at).ok_or_else(|| Loss::Failed { message: "the answer makes no sense".to_owned() })
}

impl Row {
    fn evidence(self, at: Instant) -> Option<Evidence> {
        let timeline = match self.wal_timeline {
            Some(hex) => u32::from_str_radix(&hex, 16).ok()?,
            None => u32::try_from(self.checkpoint_timeline).ok()?,
        };
        Some(Evidence {
            in_recovery: self.in_recovery,
            system_identifier: self.system_identifier.cast_unsigned(),
            timeline,
            // A standby that has not begun to replay has no position yet.
            position: self.position.map_or(Some(Lsn::default()), |lsn| lsn.parse().ok())?,
            received: self.received.and_then(|lsn| lsn.parse().ok()),
            recovered_to: self.recovered_to.and_then(|lsn| lsn.parse().ok()),
            streaming: self.streaming,
            replay_paused: self.replay_paused,
            replay_age: self.replay_age_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0))),
            at,
        })
    }
}
