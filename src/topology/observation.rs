//! What a look at a node shows.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::ConnectError;
use crate::lsn::Lsn;
use crate::stats::ServerIdentity;

/// What one successful probe showed of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Observation {
    /// Whether the node is in recovery: a standby, or a server that is starting.
    pub in_recovery: bool,
    /// The cluster's identity, given by `initdb` and shared by all its copies.
    ///
    /// `None` if the monitor's role may not ask for it: `EXECUTE` on `pg_control_system()` was revoked.
    pub system_identifier: Option<u64>,
    /// The server process that answered, which has one identity under all its names and addresses.
    pub server: Option<ServerIdentity>,
    /// The timeline that a primary writes, or the highest one that a standby is known to follow.
    ///
    /// A standby's control file may show a new timeline minutes late, so a low one proves nothing. With
    /// `pg_read_all_stats`, it shows at once. 0 if the role may see none.
    pub timeline: u32,
    /// How far it has flushed its log (a primary) or replayed it (a standby).
    pub position: Lsn,
    /// How far a standby has received, where it has received anything.
    ///
    /// It falls back to the start of a segment when the receiver begins to stream another timeline.
    pub received: Option<Lsn>,
    /// Up to where a primary had recovered when it took over or started, where it had to.
    pub recovered_to: Option<Lsn>,
    /// Whether a WAL receiver lives: the standby is connected to a primary, or tries to be.
    pub streaming: bool,
    /// The process of the WAL receiver, which is another one after each reconnection.
    pub receiver_pid: Option<i32>,
    /// The timeline that the WAL receiver receives; `None` without the privileges of `pg_read_all_stats`.
    pub received_timeline: Option<u32>,
    /// Whether replay is paused.
    pub replay_paused: bool,
    /// When the probe was sent: all of this is as it was then, or newer.
    pub at: Instant,
    /// When the answer came: all of this was so before.
    pub answered_at: Instant,
}

impl Observation {
    /// Returns a healthy, streaming standby of the cluster 7, for unit tests to change.
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

/// Why a probe did not succeed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ProbeError {
    /// No session could be opened.
    Connect(Arc<ConnectError>),
    /// The session that there was ended.
    Disconnected,
    /// No answer came in time.
    TimedOut {
        /// How long was waited.
        limit: Duration,
    },
    /// The probe itself failed at the server.
    Failed {
        /// The server's words.
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

/// What is known of a node at one moment.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum LastSeen {
    /// Nothing yet.
    #[default]
    Never,
    /// It showed this, and nothing since says otherwise.
    Observed(Observation),
    /// It is gone.
    Down,
}

impl LastSeen {
    /// What the node showed, where it is there.
    pub fn observation(&self) -> Option<&Observation> {
        match self {
            Self::Observed(observation) => Some(observation),
            Self::Never | Self::Down => None,
        }
    }
}
