//! What a listener hears.

use std::fmt;
use std::time::Duration;

use crate::error::SqlState;

/// What happened on the channels, or to the connection behind them.
///
/// A program that keeps something in memory needs two arms: on a notification it reads what changed; on
/// [`MayHaveMissed`](Self::MayHaveMissed) it reads all of it again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenEvent {
    /// A transaction notified a channel, and was committed.
    Notification(Notification),
    /// The connection ended; it is being replaced. What is notified until [`MayHaveMissed`](Self::MayHaveMissed) is not heard.
    Interrupted {
        /// The node that was listened to.
        node: String,
        /// Why the connection ended.
        reason: Interruption,
    },
    /// Notifications may be missing at this place, and later ones are heard again: read your tables again.
    MayHaveMissed(Gap),
    /// The set was closed or dropped. It is the last event.
    Closed,
}

/// A message that a transaction sent with `NOTIFY` or `pg_notify`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notification {
    /// The channel, as it was given to `pg_notify`.
    pub channel: String,
    /// The message; empty if none was given.
    pub payload: String,
    /// The server process that sent it: `pg_backend_pid()` of its session.
    pub process_id: i32,
}

impl Notification {
    pub(super) fn of(notification: &tokio_postgres::Notification) -> Self {
        Self {
            channel: notification.channel().to_owned(),
            payload: notification.payload().to_owned(),
            process_id: notification.process_id(),
        }
    }
}

/// Why notifications may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gap {
    /// The connection was lost, and replaced.
    Reconnected {
        /// The node that is listened to now.
        node: String,
        /// Time without a connection.
        after: Duration,
    },
    /// The program did not take its events in time, and some were dropped.
    Overflow,
}

/// Why the connection of a listener ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interruption {
    /// The connection broke, or the server ended it.
    Disconnected {
        /// The server's code, if it gave one.
        sqlstate: Option<SqlState>,
    },
    /// The set ended it, because the node was lost, is not the primary any more, or is fenced.
    Severed,
    /// The server did not answer on this connection.
    NoAnswer {
        /// How long was waited.
        limit: Duration,
    },
    /// The node was removed from the configuration, or is connected to with other settings from now on.
    Reconfigured,
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected { sqlstate: Some(sqlstate) } => {
                write!(f, "the server ended the connection (SQLSTATE {sqlstate})")
            }
            Self::Disconnected { sqlstate: None } => f.write_str("the connection broke"),
            Self::Severed => f.write_str("the node was lost, replaced as the primary, or fenced"),
            Self::NoAnswer { limit } => write!(f, "no answer within {limit:?}"),
            Self::Reconfigured => f.write_str("the configuration changed"),
        }
    }
}
