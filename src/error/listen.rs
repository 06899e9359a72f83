//! The errors of listening on channels.

use std::fmt;
use std::sync::Arc;

use super::{CheckoutError, ConnectError};

/// The reason why [`ReplicaSet::listen`](crate::ReplicaSet::listen) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// No channel was given.
    #[error("no channel was named, so there is nothing to listen to")]
    NoChannels,
    /// A name that `pg_notify` rejects, so no notification could ever arrive.
    #[error("{name:?} cannot be the name of a channel: {reason}")]
    Channel {
        /// The name.
        name: String,
        /// The defect of the name.
        reason: InvalidChannel,
    },
    /// There is no primary to listen to, or the set is closed.
    #[error(transparent)]
    Checkout(#[from] CheckoutError),
    /// The primary is known and alive, but rejects the login.
    #[error("{node} opened no session to listen on: {error}")]
    CannotConnect {
        /// The node's name.
        node: String,
        /// The node's error.
        error: Arc<ConnectError>,
    },
    /// The server rejected the `LISTEN` itself.
    #[error("{node} refused to listen")]
    Server {
        /// The node's name.
        node: String,
        /// The node's error.
        source: diesel::result::Error,
    },
}

/// The defect of a channel's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidChannel {
    /// The name is empty.
    Empty,
    /// The name is longer than 63 bytes.
    TooLong {
        /// Length of the name.
        bytes: usize,
    },
    /// The name contains a zero byte, which PostgreSQL's texts cannot.
    Nul,
}

impl fmt::Display for InvalidChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::TooLong { bytes } => write!(f, "it has {bytes} bytes, and 63 is the limit"),
            Self::Nul => f.write_str("it has a zero byte"),
        }
    }
}
