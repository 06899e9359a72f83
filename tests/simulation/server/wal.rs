//! The write-ahead log of a node, and the data that its replay gives (pure).

use std::collections::BTreeMap;

/// One record of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    /// An identity that no other record of the cluster has.
    pub(crate) number: u64,
    /// The position behind the record.
    pub(crate) end: u64,
    pub(crate) timeline: u32,
    pub(crate) body: Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    Insert {
        xid: u64,
        entry: Entry,
    },
    Commit {
        xid: u64,
    },
    Abort {
        xid: u64,
    },
    /// A checkpoint, a snapshot for standbys, or the end of a recovery.
    Other,
}

/// One row of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) id: i64,
    pub(crate) account: i32,
}

/// The start of the first record.
const START: u64 = 0x0300_0060;

/// The size of a WAL file.
const SEGMENT: u64 = 16 << 20;

/// Returns the start of the WAL file that holds a position.
pub(crate) fn segment_start(lsn: u64) -> u64 {
    lsn & !(SEGMENT - 1)
}

/// The log of one node; an index into it is a position.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wal(Vec<Record>);

impl Wal {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the position behind the first `n` records.
    pub(crate) fn lsn(&self, n: usize) -> u64 {
        n.checked_sub(1).map_or(START, |last| self.0[last].end)
    }

    pub(crate) fn push(&mut self, number: u64, timeline: u32, body: Body) {
        let size = match body {
            Body::Insert { .. } => 80,
            Body::Commit { .. } | Body::Abort { .. } => 40,
            Body::Other => 56,
        };
        let end = self.lsn(self.len()) + size;
        self.0.push(Record { number, end, timeline, body });
    }

    pub(crate) fn truncate(&mut self, n: usize) {
        self.0.truncate(n);
    }

    pub(crate) fn records(&self, from: usize, to: usize) -> &[Record] {
        &self.0[from..to]
    }

    /// Returns the timeline of the last of the first `n` records.
    pub(crate) fn timeline(&self, n: usize) -> u32 {
        n.checked_sub(1).map_or(1, |last| self.0[last].timeline)
    }

    /// Returns `true` if the whole log is the beginning of the first `n` records of another one.
    pub(crate) fn is_prefix_of(&self, other: &Self, n: usize) -> bool {
        let last = self.0.last().map(|record| record.number);
        self.len() <= n && self.len().checked_sub(1).map(|i| other.0[i].number) == last
    }

    /// Returns `true` if the first record of the last timeline is in another log.
    pub(crate) fn has_beginning_in(&self, other: &Self) -> bool {
        let timeline = self.timeline(self.len());
        let first = self.0.iter().position(|record| record.timeline == timeline).unwrap_or(0);
        self.0.get(first) == other.0.get(first)
    }

    /// Appends what another log has up to `n`.
    pub(crate) fn receive(&mut self, from: &Self, n: usize) {
        self.0.extend_from_slice(&from.0[self.len().min(n)..n]);
    }
}

/// The data after the replay of a log.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    committed: BTreeMap<i32, Vec<i64>>,
    open: BTreeMap<u64, Vec<Entry>>,
    ended: BTreeMap<u64, bool>,
    pub(crate) next_xid: u64,
}

/// The status of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum XactStatus {
    Committed,
    Aborted,
    InProgress,
    /// The identifier was not assigned yet.
    Future,
}

impl Default for Database {
    fn default() -> Self {
        Self { committed: BTreeMap::new(), open: BTreeMap::new(), ended: BTreeMap::new(), next_xid: 700 }
    }
}

impl Database {
    pub(crate) fn replay(records: &[Record]) -> Self {
        let mut database = Self::default();
        records.iter().for_each(|record| database.apply(record.body));
        database
    }

    pub(crate) fn apply(&mut self, body: Body) {
        match body {
            Body::Insert { xid, entry } => {
                self.next_xid = self.next_xid.max(xid + 1);
                self.open.entry(xid).or_default().push(entry);
            }
            Body::Commit { xid } => {
                for entry in self.open.remove(&xid).unwrap_or_default() {
                    self.committed.entry(entry.account).or_default().push(entry.id);
                }
                self.ended.insert(xid, true);
            }
            Body::Abort { xid } => {
                self.open.remove(&xid);
                self.ended.insert(xid, false);
            }
            Body::Other => {}
        }
    }

    /// Ends the recovery: transactions that have not ended have failed.
    pub(crate) fn end_recovery(&mut self) {
        for xid in std::mem::take(&mut self.open).into_keys() {
            self.ended.insert(xid, false);
        }
    }

    pub(crate) fn entries(&self, account: i32) -> &[i64] {
        self.committed.get(&account).map_or(&[], Vec::as_slice)
    }

    /// Returns the times that an entry was committed.
    pub(crate) fn count(&self, entry: Entry) -> usize {
        self.entries(entry.account).iter().filter(|id| **id == entry.id).count()
    }

    pub(crate) fn status(&self, xid: u64) -> XactStatus {
        match self.ended.get(&xid) {
            Some(true) => XactStatus::Committed,
            Some(false) => XactStatus::Aborted,
            None if self.open.contains_key(&xid) => XactStatus::InProgress,
            None if xid >= self.next_xid => XactStatus::Future,
            None => XactStatus::Aborted,
        }
    }
}
