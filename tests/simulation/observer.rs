//! The highest timeline that the set has shown and that counts, by the truth about the data directories.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pointsman::ReplicaSet;

/// Watches the topology of a set.
#[derive(Default)]
pub(crate) struct Observer(Mutex<State>);

#[derive(Default)]
struct State {
    set: Option<ReplicaSet>,
    version: u64,
    /// The highest timeline that each node showed, as long as its data directory exists.
    shown: BTreeMap<String, u32>,
    /// Nodes whose data directory was replaced, which the set has not noticed yet.
    replaced: BTreeSet<String>,
}

impl Observer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a set, or none from now on.
    pub(crate) fn watch(&self, set: Option<ReplicaSet>) {
        self.lock().set = set;
    }

    /// Returns the highest timeline that the set has seen, unless each data directory that has it is gone.
    pub(crate) fn highest(&self) -> u32 {
        let mut state = self.lock();
        let State { set, version, shown, replaced } = &mut *state;
        if let Some(topology) = set.as_ref().map(ReplicaSet::topology)
            && topology.version != *version
        {
            *version = topology.version;
            for node in &topology.nodes {
                if let Some(timeline) = node.timeline {
                    if replaced.contains(&node.name) {
                        continue;
                    }
                    let shown = shown.entry(node.name.clone()).or_default();
                    *shown = timeline.max(*shown);
                } else {
                    // A server is down while its data directory is replaced.
                    replaced.remove(&node.name);
                }
            }
        }
        shown.values().copied().max().unwrap_or(0)
    }

    /// Forgets a node whose data directory was replaced.
    pub(crate) fn forget(&self, node: &str) {
        self.highest();
        let mut state = self.lock();
        state.shown.remove(node);
        state.replaced.insert(node.to_owned());
    }
}
