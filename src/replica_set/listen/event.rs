//! The events of a listener.

use std::fmt;
use std::time::Duration;

use crate::error::SqlState;

/// An event on the channels, or of the connection behind them.
///
/// A program that caches data needs two arms: on a notification it reads the changed rows, and on
/// [`MayHaveMissed`](Self::MayHaveMissed) it reads all of them again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenEvent {
    /// A committed transaction notified a channel.
    Notification(Notification),
    /// The connection ended, and is being replaced.
    ///
    /// Notifications sent until [`MayHaveMissed`](Self::MayHaveMissed) are lost.
    Interrupted {
        /// The node that was listened to.
        node: String,
        /// The reason why the connection ended.
        reason: Interruption,
    },
    /// Notifications may be missing before this point, so read your tables again.
    MayHaveMissed(Gap),
    /// The set was closed or dropped. It is the last event.
    Closed,
}

/// A message that a transaction sent with `NOTIFY` or `pg_notify`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notification {
    /// The channel, as given to `pg_notify`.
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

/// The reason why notifications may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gap {
    /// The connection broke, and was replaced.
    Reconnected {
        /// The node that the listener is connected to now.
        node: String,
        /// Time without a connection.
        after: Duration,
    },
    /// The program did not take its events in time, and some were dropped.
    Overflow,
}

/// The reason why the connection of a listener ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interruption {
    /// The connection broke, or the server ended it.
    Disconnected {
        /// The server's SQLSTATE, if it sent one.
        sqlstate: Option<SqlState>,
    },
    /// The set closed the connection.
    ///
    /// The node is down, is not the primary any more, or is fenced.
    Closed,
    /// The server did not answer on this connection.
    NoAnswer {
        /// Time waited for the answer.
        limit: Duration,
    },
    /// The node was removed from the configuration, or its connection settings changed.
    Reconfigured,
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected { sqlstate: Some(sqlstate) } => {
                write!(f, "the server ended the connection (SQLSTATE {sqlstate})")
            }
            Self::Disconnected { sqlstate: None } => f.write_str("the connection broke"),
            Self::Closed => f.write_str("the node was lost, replaced as the primary, or fenced"),
            Self::NoAnswer { limit } => write!(f, "no answer within {limit:?}"),
            Self::Reconfigured => f.write_str("the configuration changed"),
        }
    }
}
