//! What a look at a node shows.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::causal::Lsn;
use crate::error::ConnectError;

/// What one successful probe showed of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Evidence {
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

impl Evidence {
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

/// One running server process, as it names itself whichever way it is reached.
///
/// Two names or addresses with one identity lead to one server. It changes when the server is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ServerIdentity {
    /// When the postmaster started (`pg_postmaster_start_time()`), in microseconds since 1970.
    pub started_at_micros: i64,
    /// The port in the server's own settings, whatever a proxy in front of it uses.
    pub port: u16,
    /// The address at which the session reached the server; `None` over a socket file.
    ///
    /// A server may have several, so it decides nothing: see [`is_same_server`](Self::is_same_server).
    pub address: Option<IpAddr>,
}

impl ServerIdentity {
    /// Returns `true` if both are the same server process, reached by whichever address.
    ///
    /// Two servers of one cluster that have the same port and started in the same microsecond are not told apart.
    pub fn is_same_server(&self, other: &Self) -> bool {
        (self.started_at_micros, self.port) == (other.started_at_micros, other.port)
    }
}

/// Why a probe did not succeed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Loss {
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

impl std::fmt::Display for Loss {
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
pub enum Sighting {
    /// Nothing yet.
    #[default]
    Unseen,
    /// It showed this, and nothing since says otherwise.
    Seen(Evidence),
    /// It is gone.
    Lost,
}

impl Sighting {
    /// What the node showed, where it is there.
    pub fn evidence(&self) -> Option<&Evidence> {
        match self {
            Self::Seen(evidence) => Some(evidence),
            Self::Unseen | Self::Lost => None,
        }
    }
}
