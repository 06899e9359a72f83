//! One probe of a node: one query that needs no privilege.
//!
//! Values that cannot change during a session (the cluster's identity, the server process) are queried by its first
//! probe only. If the role may not call the `pg_control_*` functions, the probe queries the rest: see [`Known`].

use std::net::IpAddr;
use std::time::Duration;

use diesel::QueryableByName;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text};
use diesel_async::RunQueryDsl;
use tokio::time::Instant;

use crate::error::SqlState;
use crate::lsn::Lsn;
use crate::stats::ServerIdentity;
use crate::timeout::within;
use crate::topology::{Observation, ProbeError};
use crate::wire::WireConnection;

/// The query for a node's state.
///
/// All names are qualified, operators too, so that no `search_path` can replace them.
///
/// A primary's timeline comes from the name of the WAL file that it writes. Its control file shows the old one
/// until the next checkpoint, long after a promotion. A standby's control file is later still, and `received_tli`
/// needs a privilege. A primary's position is what it has flushed, because a standby cannot receive more.
const STATE: &str = "\
    SELECT r.in_recovery, \
        CASE WHEN r.in_recovery THEN NULL \
            ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) \
        END AS wal_timeline, \
        (CASE WHEN r.in_recovery THEN pg_catalog.pg_last_wal_replay_lsn() \
            ELSE pg_catalog.pg_current_wal_flush_lsn() END)::pg_catalog.text AS position, \
        (CASE WHEN r.in_recovery THEN pg_catalog.pg_last_wal_receive_lsn() END)::pg_catalog.text AS received, \
        (CASE WHEN NOT r.in_recovery THEN pg_catalog.pg_last_wal_replay_lsn() END)::pg_catalog.text AS recovered_to, \
        NOT r.in_recovery AND pg_catalog.pg_last_wal_receive_lsn() IS NOT NULL AS promoted_since_start, \
        w.pid AS receiver_pid, w.received_tli AS received_timeline, \
        CASE WHEN r.in_recovery THEN pg_catalog.pg_is_wal_replay_paused() ELSE false END AS replay_paused, ";

const STATE_FROM: &str = " FROM (SELECT pg_catalog.pg_is_in_recovery() AS in_recovery) AS r \
        LEFT JOIN pg_catalog.pg_stat_wal_receiver AS w ON w.pid IS NOT NULL";

const CONTROL: &str = "(SELECT c.timeline_id FROM pg_catalog.pg_control_checkpoint() AS c) AS checkpoint_timeline, \
        (SELECT c.min_recovery_end_timeline FROM pg_catalog.pg_control_recovery() AS c) AS recovery_timeline";
const NO_CONTROL: &str =
    "NULL::pg_catalog.int4 AS checkpoint_timeline, NULL::pg_catalog.int4 AS recovery_timeline";

const SERVER: &str = "(extract(epoch FROM pg_catalog.pg_postmaster_start_time()) OPERATOR(pg_catalog.*) 1000000) \
            ::pg_catalog.int8 AS started_at_micros, \
        pg_catalog.current_setting('port')::pg_catalog.int4 AS port, \
        pg_catalog.host(pg_catalog.inet_server_addr()) AS address";
const NO_SERVER: &str = "NULL::pg_catalog.int8 AS started_at_micros, NULL::pg_catalog.int4 AS port, \
        NULL::pg_catalog.text AS address";

const IDENTITY: &str =
    "(SELECT s.system_identifier FROM pg_catalog.pg_control_system() AS s) AS system_identifier";
const NO_IDENTITY: &str = "NULL::pg_catalog.int8 AS system_identifier";

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Bool)]
    in_recovery: bool,
    #[diesel(sql_type = Nullable<Text>)]
    wal_timeline: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    position: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    received: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    recovered_to: Option<String>,
    #[diesel(sql_type = Bool)]
    promoted_since_start: bool,
    #[diesel(sql_type = Nullable<Integer>)]
    receiver_pid: Option<i32>,
    #[diesel(sql_type = Nullable<Integer>)]
    received_timeline: Option<i32>,
    #[diesel(sql_type = Bool)]
    replay_paused: bool,
    #[diesel(sql_type = Nullable<Integer>)]
    checkpoint_timeline: Option<i32>,
    #[diesel(sql_type = Nullable<Integer>)]
    recovery_timeline: Option<i32>,
    #[diesel(sql_type = Nullable<BigInt>)]
    started_at_micros: Option<i64>,
    #[diesel(sql_type = Nullable<Integer>)]
    port: Option<i32>,
    #[diesel(sql_type = Nullable<Text>)]
    address: Option<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    system_identifier: Option<i64>,
}

/// Results of a monitor's earlier probes, so that no probe queries them twice.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Queried once per session.
    server: Option<ServerIdentity>,
    /// Kept across sessions as long as they reach the same server process.
    identity: Option<(ServerIdentity, u64)>,
    /// `true` if the session may not call the `pg_control_*` functions.
    ///
    /// Their `EXECUTE` privilege was revoked.
    without_control: bool,
}

impl Known {
    /// Forgets what holds for one session only.
    pub(super) fn begin_session(&mut self) {
        self.server = None;
        self.without_control = false;
    }

    fn query(&self) -> String {
        let (server, identity) = match self.server {
            Some(_) => (NO_SERVER, NO_IDENTITY),
            None if self.without_control => (SERVER, NO_IDENTITY),
            None => (SERVER, IDENTITY),
        };
        let control = if self.without_control { NO_CONTROL } else { CONTROL };
        format!("{STATE}{control}, {server}, {identity}{STATE_FROM}")
    }

    /// Records the values of a session's first answer.
    fn learn(&mut self, row: &Row) {
        let (Some(started_at_micros), Some(port)) = (row.started_at_micros, row.port) else { return };
        let server = ServerIdentity {
            started_at_micros,
            port: u16::try_from(port).unwrap_or_default(),
            address: row.address.as_ref().and_then(|address| address.parse::<IpAddr>().ok()),
        };
        self.server = Some(server);
        if let Some(identifier) = row.system_identifier {
            self.identity = Some((server, identifier.cast_unsigned()));
        }
    }

    fn system_identifier(&self) -> Option<u64> {
        let (server, identifier) = self.identity?;
        self.server.is_some_and(|now| now.is_same_server(&server)).then_some(identifier)
    }
}

/// Queries the state of a node.
///
/// # Errors
///
/// Returns why there is no answer; the connection must not be used again then.
pub(super) async fn probe(
    link: &WireConnection,
    limit: Duration,
    known: &mut Known,
) -> Result<Observation, ProbeError> {
    match ask(link, limit, known).await {
        // The server checks the privilege before it runs anything, so the session can run the smaller query.
        Err(ProbeError::Failed { .. }) if is_refused(link) && !known.without_control => {
            known.without_control = true;
            ask(link, limit, known).await
        }
        asked => asked,
    }
}

/// Returns `true` if the last error was 42501, insufficient privilege.
fn is_refused(link: &WireConnection) -> bool {
    link.wire().sqlstate() == Some(SqlState::new(*b"42501"))
}

async fn ask(link: &WireConnection, limit: Duration, known: &mut Known) -> Result<Observation, ProbeError> {
    // The probe is sent now, so the values are at least as fresh as this.
    let at = Instant::now();
    let rows = diesel::sql_query(known.query()).get_result::<Row>(&mut link.conn());
    let row = match within(limit, rows).await {
        None => return Err(ProbeError::TimedOut { limit }),
        Some(Err(_)) if link.is_closed() => return Err(ProbeError::Disconnected),
        Some(Err(Error::DatabaseError(DatabaseErrorKind::UnableToSendCommand, _))) => {
            return Err(ProbeError::Disconnected);
        }
        Some(Err(error)) => return Err(ProbeError::Failed { message: error.to_string() }),
        Some(Ok(row)) => row,
    };
    known.learn(&row);
    row.observation(at, known)
        .ok_or_else(|| ProbeError::Failed { message: "the answer makes no sense".to_owned() })
}

impl Row {
    fn observation(self, at: Instant, known: &Known) -> Option<Observation> {
        let timeline = match self.wal_timeline {
            Some(hex) => u32::from_str_radix(&hex, 16).ok()?,
            None => {
                let shown = [self.checkpoint_timeline, self.recovery_timeline, self.received_timeline];
                shown
                    .into_iter()
                    .flatten()
                    .filter_map(|timeline| u32::try_from(timeline).ok())
                    .max()
                    .unwrap_or(0)
            }
        };
        Some(Observation {
            in_recovery: self.in_recovery,
            system_identifier: known.system_identifier(),
            server: known.server,
            timeline,
            // A standby that has not begun to replay has no position yet.
            position: self.position.map_or(Some(Lsn::default()), |lsn| lsn.parse().ok())?,
            received: self.received.and_then(|lsn| lsn.parse().ok()),
            recovered_to: self.recovered_to.and_then(|lsn| lsn.parse().ok()),
            promoted_since_start: self.promoted_since_start,
            streaming: self.receiver_pid.is_some(),
            receiver_pid: self.receiver_pid,
            received_timeline: self.received_timeline.and_then(|timeline| u32::try_from(timeline).ok()),
            replay_paused: self.replay_paused,
            at,
            answered_at: Instant::now(),
        })
    }
}
