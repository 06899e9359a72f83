//! Channels could not be listened to.

use std::fmt;
use std::sync::Arc;

use super::{CheckoutError, ConnectError};

/// Why [`ReplicaSet::listen`](crate::ReplicaSet::listen) has no listener to give.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// No channel was named.
    #[error("no channel was named, so there is nothing to listen to")]
    NoChannels,
    /// A name that `pg_notify` refuses, so no notification could ever come.
    #[error("{name:?} cannot be the name of a channel: {fault}")]
    Channel {
        /// The name.
        name: String,
        /// What is wrong with it.
        fault: ChannelFault,
    },
    /// There is no primary to listen to, or the set is closed.
    #[error(transparent)]
    Checkout(#[from] CheckoutError),
    /// The primary is known and alive, and turns the login away.
    #[error("{node} opened no session to listen on: {error}")]
    CannotConnect {
        /// The node's name.
        node: String,
        /// What it answered.
        error: Arc<ConnectError>,
    },
    /// The server refused the `LISTEN` itself.
    #[error("{node} refused to listen")]
    Server {
        /// The node's name.
        node: String,
        /// What it answered.
        source: diesel::result::Error,
    },
}

/// What is wrong with the name of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelFault {
    /// It is empty.
    Empty,
    /// It is longer than 63 bytes.
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It has a zero byte, which PostgreSQL's texts cannot have.
    Nul,
}

impl fmt::Display for ChannelFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::TooLong { bytes } => write!(f, "it has {bytes} bytes, and 63 is the limit"),
            Self::Nul => f.write_str("it has a zero byte"),
        }
    }
}
