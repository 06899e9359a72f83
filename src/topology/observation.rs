//! The result of a probe.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::ConnectError;
use crate::lsn::Lsn;
use crate::stats::ServerIdentity;

/// The state of a node, as one successful probe showed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Observation {
    /// `true` if the node is in recovery: a standby, or a starting server.
    pub(crate) in_recovery: bool,
    /// The cluster's identity, set by `initdb` and shared by all copies.
    ///
    /// `None` if the monitor's role may not ask for it: `EXECUTE` on `pg_control_system()` was revoked.
    pub(crate) system_identifier: Option<u64>,
    /// The server process that answered, under any name or address.
    pub(crate) server: Option<ServerIdentity>,
    /// The timeline that a primary writes, or the highest that a standby follows.
    ///
    /// A standby's control file may show a new timeline minutes late, so a low one proves nothing. With
    /// `pg_read_all_stats`, the new one shows at once. 0 if the role may see none.
    pub(crate) timeline: u32,
    /// The position that a primary has flushed, or a standby has replayed.
    pub(crate) position: Lsn,
    /// The position that a standby has received, if any.
    ///
    /// The position falls back to the start of a segment when the receiver begins to stream another timeline.
    pub(crate) received: Option<Lsn>,
    /// The position up to which a primary recovered at its start, if it did.
    ///
    /// A promotion counts as a start.
    pub(crate) recovered_to: Option<Lsn>,
    /// `true` if a primary was promoted and not restarted since.
    ///
    /// Then `recovered_to` is the fork of its timeline.
    ///
    /// It is certain only for a server that streamed before its promotion.
    pub(crate) promoted_since_start: bool,
    /// `true` if a WAL receiver runs.
    ///
    /// Then the standby is connected to a primary, or tries to be.
    pub(crate) streaming: bool,
    /// Process id of the WAL receiver, which changes with each reconnection.
    pub(crate) receiver_pid: Option<i32>,
    /// The timeline that the WAL receiver receives.
    ///
    /// `None` without the privileges of `pg_read_all_stats`.
    pub(crate) received_timeline: Option<u32>,
    /// `true` if replay is paused.
    pub(crate) replay_paused: bool,
    /// When the probe was sent: the values are from this moment or later.
    pub(crate) at: Instant,
    /// When the answer came: the values are from before this moment.
    pub(crate) answered_at: Instant,
}

impl Observation {
    /// Returns a healthy, streaming standby of cluster 7, for unit tests.
    #[cfg(test)]
    pub(crate) fn standby(timeline: u32, position: u64, at: Instant) -> Self {
        Self {
            in_recovery: true,
            system_identifier: Some(7),
            server: None,
            timeline,
            position: Lsn::new(position),
            received: Some(Lsn::new(position)),
            recovered_to: None,
            promoted_since_start: false,
            streaming: true,
            receiver_pid: Some(100),
            received_timeline: None,
            replay_paused: false,
            at,
            answered_at: at,
        }
    }

    /// Returns a primary of the cluster 7, for unit tests to change.
    #[cfg(test)]
    pub(crate) fn primary(timeline: u32, position: u64, at: Instant) -> Self {
        Self {
            in_recovery: false,
            received: None,
            streaming: false,
            receiver_pid: None,
            ..Self::standby(timeline, position, at)
        }
    }
}

/// The reason why a probe failed.
#[derive(Debug, Clone)]
pub(crate) enum ProbeError {
    /// No session could be opened.
    Connect(Arc<ConnectError>),
    /// The existing session was closed.
    Disconnected,
    /// No answer came in time.
    TimedOut {
        /// The timeout that passed.
        limit: Duration,
    },
    /// The server answered the probe with an error.
    Failed {
        /// The server's message.
        message: String,
    },
}

impl std::fmt::Display for ProbeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "{error}"),
            Self::Disconnected => f.write_str("the connection to it ended"),
            Self::TimedOut { limit } => write!(f, "no answer within {limit:?}"),
            Self::Failed { message } => write!(f, "the probe failed: {message}"),
        }
    }
}

/// The last observation of a node.
#[derive(Debug, Clone, Default)]
pub(crate) enum LastSeen {
    /// No observation yet.
    #[default]
    Never,
    /// The node showed this, and no later probe contradicts it.
    Observed(Observation),
    /// The node is down.
    Down,
}

impl LastSeen {
    /// Returns the observation, unless the node is unknown or down.
    pub(crate) fn observation(&self) -> Option<&Observation> {
        match self {
            Self::Observed(observation) => Some(observation),
            Self::Never | Self::Down => None,
        }
    }
}
