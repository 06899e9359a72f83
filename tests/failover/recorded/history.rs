//! The record of a run: what each session did, and what it saw; what the servers went through.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// The identity of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WriteId {
    /// The session that made it.
    pub(crate) session: u32,
    /// Its number within the session.
    pub(crate) number: u32,
}

impl WriteId {
    /// Returns the form that the table stores.
    pub(crate) fn to_row(self) -> i64 {
        i64::from(self.session) << 32 | i64::from(self.number)
    }

    /// Returns the write that a row of the table stands for.
    pub(crate) fn from_row(id: i64) -> Self {
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
pub(crate) type Key = i32;

/// The writes that one statement saw, by key. A key that was read and had no write has an empty set.
pub(crate) type Snapshot = BTreeMap<Key, BTreeSet<WriteId>>;

/// The record of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) operations: Vec<Operation>,
    /// The rows of the primary after all operations. A write that was carried out twice has two.
    pub(crate) end: Vec<(Key, WriteId)>,
    /// The names of the nodes.
    pub(crate) nodes: Vec<String>,
    pub(crate) outages: Vec<Outage>,
    /// The promotions that may lose an acknowledged write, because no commit waits for a replica.
    pub(crate) lossy_promotions: Vec<Promotion>,
    /// Time from the end of the last fault until every node served; `None` if that never happened.
    pub(crate) recovery: Option<Duration>,
}

impl History {
    /// Returns the rows at the end as a snapshot of the keys below `keys`.
    pub(crate) fn end_snapshot(&self, keys: Key) -> Snapshot {
        let mut snapshot: Snapshot = (0..keys).map(|key| (key, BTreeSet::new())).collect();
        for (key, write) in &self.end {
            snapshot.entry(*key).or_default().insert(*write);
        }
        snapshot
    }
}

/// A fault: a time in which a node may not be able to serve.
#[derive(Debug, Clone)]
pub(crate) struct Outage {
    pub(crate) kind: String,
    pub(crate) node: String,
    pub(crate) from: Duration,
    pub(crate) until: Duration,
}

/// A promotion of a node that may lack acknowledged writes.
#[derive(Debug, Clone)]
pub(crate) struct Promotion {
    /// Time at which the node's rows were read, once it took writes.
    pub(crate) at: Duration,
    /// The writes that the node had.
    pub(crate) had: BTreeSet<WriteId>,
}

/// One operation of a session.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) session: u32,
    /// Time since the start of the run.
    pub(crate) began: Duration,
    pub(crate) ended: Duration,
    pub(crate) action: Action,
}

impl Operation {
    /// Returns the time that the operation took.
    pub(crate) fn took(&self) -> Duration {
        self.ended.saturating_sub(self.began)
    }
}

/// The effect of an operation.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// It read some keys in one statement; without the session's token, it may be older than what the session knows.
    Read { seen: Snapshot, node: String, by_replica: bool, with_token: bool },
    /// A read failed.
    ReadFailed { error: String, with_token: bool },
    /// It added a write to a key; a transaction has first read some keys.
    Write { write: WriteId, key: Key, outcome: Outcome, seen: Option<Snapshot>, error: Option<String> },
    /// It failed with an error that reports a loss, and the session forgot what it had seen.
    LossReported,
}

/// The session's knowledge of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Acknowledged,
    /// It may or may not be carried out, because the answer never came.
    Unknown,
    /// It may or may not be carried out, because the session dropped it.
    Dropped,
    /// It was certainly not carried out.
    Failed,
    /// It was not sent, because the session's token forbade it.
    Refused,
}

impl Action {
    /// Returns the snapshot that the operation saw.
    pub(crate) fn seen(&self) -> Option<&Snapshot> {
        match self {
            Self::Read { seen, .. } => Some(seen),
            Self::Write { seen, .. } => seen.as_ref(),
            Self::ReadFailed { .. } | Self::LossReported => None,
        }
    }
}
