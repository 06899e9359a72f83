//! Decides if a history keeps what the set promises (pure).
//!
//! * `sessions`: what a session sees of its writes and of others
//! * `service`: what becomes of writes and reads, whichever nodes fail

use std::fmt;
use std::time::Duration;

use super::history::{History, Key, WriteId};

mod service;
mod sessions;

/// A guarantee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    // Of sessions.
    ReadYourWrites,
    MonotonicReads,
    WritesFollowReads,
    NoSilentLoss,
    NoWriteFromNowhere,
    // Of the service.
    NoLoss,
    NoDoubledWrite,
    NoFailedWrite,
    NoUnknownOutcome,
    NoFailedRead,
    NothingOverdue,
    HealthyAgain,
}

/// The promises of a run beyond the guarantees of sessions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Promises {
    /// Longest duration of a read.
    pub(crate) read_limit: Duration,
    /// Longest duration of a write.
    pub(crate) write_limit: Duration,
    /// Longest time from the end of the last fault until every node serves.
    pub(crate) recovery_limit: Duration,
}

/// An operation, or the state at the end, that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    /// The session of the operation; `None` for the state at the end.
    pub(crate) session: Option<u32>,
    /// The time at which the operation began; the write's own for a lost or doubled write.
    pub(crate) began: Duration,
    pub(crate) subject: Subject,
}

/// The part of an operation that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A write that is missing, or that is there without a right to.
    Write(Key, WriteId),
    /// The duration, which is too long.
    Took(Duration),
    /// The error, for which there is no reason.
    Error(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, session, began, subject } = self;
        let session = session.map_or("the end".to_owned(), |session| format!("session {session}"));
        write!(f, "{rule:?}: {session} at {began:?}: ")?;
        match subject {
            Subject::Write(key, write) => write!(f, "write {write} of key {key}"),
            Subject::Took(took) => write!(f, "it took {took:?}"),
            Subject::Error(error) => f.write_str(error),
        }
    }
}

/// Returns what a history violates; `keys` is the number of keys.
pub(crate) fn violations(history: &History, keys: Key, promises: Option<&Promises>) -> Vec<Violation> {
    let mut found = sessions::violations(&history.operations, &history.end_snapshot(keys));
    found.extend(service::lost(history));
    found.extend(service::doubled(history));
    if let Some(promises) = promises {
        found.extend(service::unavailable(history, promises));
    }
    found
}
