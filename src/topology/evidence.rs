//! What a look at a node shows.

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
    pub system_identifier: u64,
    /// The timeline that it writes (a primary) or at least has replayed up to (a standby).
    pub timeline: u32,
    /// How far it has flushed its log (a primary) or replayed it (a standby).
    pub position: Lsn,
    /// How far a standby has received, where it has received anything.
    pub received: Option<Lsn>,
    /// Up to where a primary had recovered when it took over or started, where it had to.
    pub recovered_to: Option<Lsn>,
    /// Whether a WAL receiver lives: the standby is connected to a primary.
    pub streaming: bool,
    /// Whether replay is paused.
    pub replay_paused: bool,
    /// How old, by the node's own clock, the last transaction is that it replayed.
    pub replay_age: Option<Duration>,
    /// When it was seen.
    pub at: Instant,
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
