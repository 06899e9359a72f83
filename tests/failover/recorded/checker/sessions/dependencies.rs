//! The knowledge of each session before each of its writes.

use std::collections::{BTreeSet, HashMap};

use crate::recorded::history::{Key, Snapshot, WriteId};

/// A session between two reported losses.
type Epoch = (u32, u32);

/// The sessions' knowledge, in the order in which they learned it.
#[derive(Debug, Default)]
pub(super) struct Dependencies {
    /// By epoch and key, each with its place in the order of the epoch.
    known: HashMap<Epoch, HashMap<Key, Vec<(usize, WriteId)>>>,
    /// The number of writes known in each epoch.
    counts: HashMap<Epoch, usize>,
    /// The epoch of each write, and the number of writes known before it.
    writes: HashMap<WriteId, (Epoch, usize)>,
}

impl Dependencies {
    /// Records that a session knows a write from now on.
    pub(super) fn record_known(&mut self, session: u32, epoch: u32, key: Key, write: WriteId) {
        let epoch = (session, epoch);
        let count = self.counts.entry(epoch).or_default();
        self.known.entry(epoch).or_default().entry(key).or_default().push((*count, write));
        *count += 1;
    }

    /// Records that a session makes a write now.
    pub(super) fn record_write(&mut self, write: WriteId, session: u32, epoch: u32) {
        let epoch = (session, epoch);
        self.writes.insert(write, (epoch, self.counts.get(&epoch).copied().unwrap_or_default()));
    }
}

/// The snapshots of a history, one after the other.
///
/// Most show all that the one before showed of a key, so only what is new needs to be looked at.
#[derive(Debug)]
pub(super) struct Snapshots<'h> {
    dependencies: Dependencies,
    keys: HashMap<Key, Shown<'h>>,
}

/// The value that the last snapshot of a key showed.
#[derive(Debug, Default)]
struct Shown<'h> {
    writes: Option<&'h BTreeSet<WriteId>>,
    /// The number of writes that were known before the last write of each epoch, among those that are shown.
    last: HashMap<Epoch, usize>,
    /// The number of writes known in each epoch, of which those of this key are all shown.
    complete: HashMap<Epoch, usize>,
}

impl<'h> Snapshots<'h> {
    pub(super) fn new(dependencies: Dependencies) -> Self {
        Self { dependencies, keys: HashMap::new() }
    }

    /// Goes on to the next snapshot, and returns what the ones before did not show.
    pub(super) fn show(&mut self, seen: &'h Snapshot) -> Vec<(Key, WriteId)> {
        let mut new = Vec::new();
        for (key, writes) in seen {
            let shown = self.keys.entry(*key).or_default();
            if shown.writes.is_some_and(|before| !before.is_subset(writes)) {
                *shown = Shown::default();
            }
            let start = new.len();
            match shown.writes.replace(writes) {
                Some(before) => new.extend(writes.difference(before).map(|write| (*key, *write))),
                None => new.extend(writes.iter().map(|write| (*key, *write))),
            }
            for (epoch, count) in
                new[start..].iter().filter_map(|(_, write)| self.dependencies.writes.get(write))
            {
                raise(&mut shown.last, *epoch, *count);
            }
        }
        new
    }

    /// Returns what a snapshot, which was just shown, lacks although it has a write that was made later.
    pub(super) fn missing_from(&mut self, seen: &Snapshot) -> Vec<(Key, WriteId)> {
        // The last write of an epoch depends on all that the others depend on.
        let mut last = HashMap::new();
        for (epoch, count) in seen.keys().filter_map(|key| self.keys.get(key)).flat_map(|shown| &shown.last) {
            raise(&mut last, *epoch, *count);
        }
        let mut missing = Vec::new();
        for (key, writes) in seen {
            let shown = self.keys.entry(*key).or_default();
            for (epoch, count) in &last {
                let Some(known) = self.dependencies.known.get(epoch).and_then(|known| known.get(key)) else {
                    continue;
                };
                let complete = shown.complete.get(epoch).copied().unwrap_or_default();
                let open = known.partition_point(|(place, _)| *place < complete);
                let before = known[open..].iter().take_while(|(place, _)| place < count);
                let start = missing.len();
                missing.extend(
                    before.filter(|(_, write)| !writes.contains(write)).map(|(_, write)| (*key, *write)),
                );
                if missing.len() == start {
                    raise(&mut shown.complete, *epoch, *count);
                }
            }
        }
        missing.sort_unstable();
        missing.dedup();
        missing
    }
}

fn raise(counts: &mut HashMap<Epoch, usize>, epoch: Epoch, count: usize) {
    let known = counts.entry(epoch).or_default();
    *known = (*known).max(count);
}
