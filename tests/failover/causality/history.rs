//! The record of a run: what each session did, and what it saw.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// The identity of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WriteId {
    /// The session that made it.
    pub(super) session: u32,
    /// Its number within the session.
    pub(super) number: u32,
}

impl WriteId {
    /// Returns the form that the table stores.
    pub(super) fn to_row(self) -> i64 {
        i64::from(self.session) << 32 | i64::from(self.number)
    }

    /// Returns the write that a row of the table stands for.
    pub(super) fn from_row(id: i64) -> Self {
        let half = |bits: i64| u32::try_from(bits & i64::from(u32::MAX)).expect("32 bits");
        Self { session: half(id >> 32), number: half(id) }
    }
}

impl fmt::Display for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.session, self.number)
    }
}

/// A set of writes, to which each write adds itself.
pub(super) type Key = i32;

/// The writes that one statement saw, by key. A key that was read and had no write has an empty set.
pub(super) type Snapshot = BTreeMap<Key, BTreeSet<WriteId>>;

/// One operation of a session.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) session: u32,
    /// Time since the start of the run.
    pub(super) began: Duration,
    pub(super) ended: Duration,
    pub(super) action: Action,
}

/// The effect of an operation.
#[derive(Debug, Clone)]
pub(super) enum Action {
    /// It read some keys in one statement.
    Read { seen: Snapshot, by_replica: bool },
    /// It added a write to a key; a transaction has first read some keys.
    Write { write: WriteId, key: Key, outcome: Outcome, seen: Option<Snapshot> },
    /// It failed with an error that reports a loss, and the session forgot what it had seen.
    LossReported,
}

/// The session's knowledge of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Acknowledged,
    /// It may or may not be carried out, because the answer never came.
    Unknown,
    /// It was certainly not carried out.
    Failed,
}

impl Action {
    /// Returns the snapshot that the operation saw.
    pub(super) fn seen(&self) -> Option<&Snapshot> {
        match self {
            Self::Read { seen, .. } => Some(seen),
            Self::Write { seen, .. } => seen.as_ref(),
            Self::LossReported => None,
        }
    }
}
