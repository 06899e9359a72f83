//! Where the monitors post what they see, and the topology comes from.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::Instant;

use super::changes::{has_moved, log_changes, log_lost_history, same_for_users};
use super::condition::{Change, Condition, Look};
use super::reason::{UNIDENTIFIED, conflict, parting, staleness};
use super::search::Search;
use super::snapshot::{Placed, Snapshot};
use crate::config::{Config, Fallback};
use crate::node::{Node, Retired};
use crate::topology::{
    Health, Lineage, Memory, NodeStatus, PrimaryStatus, Recoveries, Seen, ShownIdentifier, Standing,
    Topology, Verdict, judge,
};

/// What the monitors know, behind one short lock.
pub(crate) struct Board {
    state: Mutex<State>,
    current: ArcSwap<Snapshot>,
    /// Changes when a role or a health does, not with every look.
    changes: watch::Sender<Arc<Topology>>,
    /// Since when a primary is being looked for.
    looking: watch::Sender<Option<Instant>>,
}

struct State {
    memory: Memory,
    entries: Vec<Entry>,
    /// Nodes that were removed, as long as connections to them are in use: they stay watched, and are fenced if need be.
    leaving: Vec<Entry>,
    config: Arc<Config>,
    version: u64,
    search: Search,
    /// When the history was forgotten: probes that were sent before do not count.
    forgotten: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) node: Arc<Node>,
    pub(super) condition: Condition,
}

impl Entry {
    /// Returns `true` if this primary took over from a node that was removed and writes, or did when it was last seen.
    fn has_replaced(&self, removed: &Self) -> bool {
        let (Some(primary), Some(old)) =
            (self.condition.sighting.evidence(), removed.condition.sighting.evidence())
        else {
            return false;
        };
        let same_server = self.node.config().is_same_server(removed.node.config())
            || primary.server.zip(old.server).is_some_and(|(primary, old)| primary.is_same_server(&old));
        !old.in_recovery && !same_server && primary.system_identifier == old.system_identifier
    }
}

impl Board {
    /// Sets the nodes up, none of them seen.
    pub(crate) fn new(config: Arc<Config>, nodes: Vec<Arc<Node>>) -> Self {
        let entries = nodes.into_iter().map(|node| Entry { node, condition: Condition::default() }).collect();
        let mut state = State {
            memory: Memory::default(),
            entries,
            leaving: Vec::new(),
            config,
            version: 0,
            search: Search::default(),
            forgotten: None,
        };
        let now = Instant::now();
        let snapshot = Arc::new(state.snapshot(now));
        Self {
            changes: watch::Sender::new(Arc::clone(&snapshot.topology)),
            looking: watch::Sender::new(state.search.on(true, true, now)),
            current: ArcSwap::new(snapshot),
            state: Mutex::new(state),
        }
    }

    /// The nodes as they stand now.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// How the nodes came to write, in the order in which it was seen.
    pub(crate) fn recoveries(&self) -> Arc<Recoveries> {
        Arc::clone(&self.lock().memory.recoveries)
    }

    /// A view that changes when a role or a health does.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Topology>> {
        self.changes.subscribe()
    }

    /// Since when a primary is being looked for; nothing while there is one that is well.
    pub(crate) fn looking(&self) -> watch::Receiver<Option<Instant>> {
        self.looking.subscribe()
    }

    /// Takes a look into account, and acts on what follows.
    pub(crate) fn post(&self, node: &Arc<Node>, look: Look, now: Instant) {
        let mut state = self.lock();
        if matches!(&look, Look::Answered(evidence) if state.forgotten.is_some_and(|at| evidence.at < at)) {
            return;
        }
        let reads = state.config.reads().clone();
        let State { entries, leaving, .. } = &mut *state;
        let mut known = entries.iter_mut().chain(leaving);
        let Some(entry) = known.find(|entry| entry.node.id() == node.id()) else { return };
        // The monitor may still hold the node whose settings were replaced.
        let node = Arc::clone(&entry.node);
        let before = entry.condition.health;
        if matches!(look, Look::Answered(_)) {
            node.vitals().trust();
        }
        let change = entry.condition.on(look, &reads, now);
        let after = entry.condition.health;
        if before != after {
            let reason = entry.condition.loss.as_ref().map(ToString::to_string);
            tracing::info!(node = node.name(), %before, %after, reason, "a node's health changed");
            if after == Health::Up {
                node.on_well();
            }
        }
        // Its users would wait for a server of which nobody knows when it answers.
        if change == Change::Gone {
            node.sever();
        }
        self.publish(&mut state, now);
    }

    /// Forgets what is known and remembered of the nodes, and has all of them probed again.
    pub(crate) fn forget(&self, now: Instant) {
        let mut state = self.lock();
        state.memory.forget(now);
        state.forgotten = Some(now);
        for entry in &mut state.entries {
            entry.condition = Condition::default();
            entry.node.vitals().look();
        }
        self.publish(&mut state, now);
    }

    /// Replaces the nodes; what is known of those that stay is kept, and those that go are watched until they are drained.
    pub(crate) fn replace(&self, config: Arc<Config>, nodes: Vec<Arc<Node>>) -> Vec<Retired> {
        let mut state = self.lock();
        let mut old = std::mem::take(&mut state.entries);
        old.append(&mut state.leaving);
        let mut replaced = Vec::new();
        let keep = |node: Arc<Node>| {
            let Some(i) = old.iter().position(|entry| entry.node.id() == node.id()) else {
                return Entry { node, condition: Condition::default() };
            };
            let known = old.swap_remove(i);
            if !Arc::ptr_eq(&known.node, &node) {
                replaced.extend(node.take_over(&known.node));
            }
            Entry { node, ..known }
        };
        state.entries = nodes.into_iter().map(keep).collect();
        state.leaving = old;
        state.config = config;
        self.publish(&mut state, Instant::now());
        // Only now, when no caller is sent there any more.
        Node::retire(&replaced);
        for entry in &state.leaving {
            entry.node.drain();
        }
        replaced
    }

    /// Returns `true` if a node is to be watched: it is configured, or connections to it are in use.
    pub(crate) fn is_watched(&self, node: &Node) -> bool {
        let state = self.lock();
        state.entries.iter().chain(&state.leaving).any(|entry| entry.node.id() == node.id())
    }

    /// Returns `true` if a node is fenced, so that no pool connects to it.
    pub(crate) fn is_fenced(&self, node: &Node) -> bool {
        let snapshot = self.current.load();
        snapshot.nodes.iter().any(|placed| placed.node.id() == node.id() && placed.standing.is_fenced())
    }

    /// Returns the nodes, those that were removed and are not drained yet as well.
    pub(crate) fn nodes(&self) -> Vec<Arc<Node>> {
        let state = self.lock();
        state.entries.iter().chain(&state.leaving).map(|entry| Arc::clone(&entry.node)).collect()
    }

    fn publish(&self, state: &mut State, now: Instant) {
        let snapshot = Arc::new(state.snapshot(now));
        // Fenced before anybody reads of the new primary, so that the two never take writes at once.
        for (i, placed) in snapshot.nodes.iter().enumerate() {
            if snapshot.primary != Some(i) {
                placed.node.close_writes();
            }
            if placed.standing.is_fenced() {
                placed.node.sever();
            }
        }
        if let Some(primary) = snapshot.primary {
            snapshot.nodes[primary].node.open_writes();
        }
        state.fence_leaving(&snapshot);
        let before = self.current.swap(Arc::clone(&snapshot));
        log_changes(&before.topology, &snapshot.topology);
        let suspect = |i: usize| snapshot.topology.nodes[i].health != Health::Up;
        let looking = snapshot.primary.is_none_or(suspect);
        let search = state.search.on(looking, has_moved(&before.topology, &snapshot.topology), now);
        self.looking.send_if_modified(|was| std::mem::replace(was, search) != search);
        self.changes.send_if_modified(|topology| {
            let changed = !same_for_users(topology, &snapshot.topology);
            if changed {
                *topology = Arc::clone(&snapshot.topology);
            }
            changed
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Fences a removed primary once another server has taken over, and lets go of what has drained.
    fn fence_leaving(&mut self, snapshot: &Snapshot) {
        let primary = snapshot.primary.map(|primary| &self.entries[primary]);
        self.leaving.retain(|entry| {
            if primary.is_some_and(|primary| primary.has_replaced(entry)) {
                entry.node.close_writes();
                entry.node.sever();
            }
            let in_use = entry.node.connections() > 0;
            if !in_use {
                entry.node.close();
            }
            in_use
        });
    }

    fn snapshot(&mut self, now: Instant) -> Snapshot {
        let seen = self.entries.iter().map(|entry| Seen {
            node: entry.node.config().server_key(),
            sighting: &entry.condition.sighting,
            promotable: entry.node.config().promotable(),
        });
        let seen: Vec<Seen<'_>> = seen.collect();
        let verdict = judge(&mut self.memory, &seen, now);
        if let Some(lost) = &verdict.lost {
            log_lost_history(lost, verdict.timeline);
        }
        self.version += 1;
        let statuses: Vec<NodeStatus> =
            self.entries.iter().enumerate().map(|(i, entry)| self.status(entry, i, &verdict)).collect();
        let placed = |(i, (entry, status)): (usize, (&Entry, &NodeStatus))| Placed {
            node: Arc::clone(&entry.node),
            standing: status.standing,
            well: is_well(status),
            fit: self.is_fit(status),
            last_resort: self.is_last_resort(status, i, &verdict),
            near: self.is_near(&entry.node),
            recovery: entry.condition.recovery.clone(),
            loss: entry.condition.loss.clone(),
        };
        let nodes = self.entries.iter().zip(&statuses).enumerate().map(placed).collect();
        let name = |i: usize| self.entries[i].node.name().to_owned();
        let primary = match (verdict.primary, &verdict.mismatch) {
            (Some(i), _) => PrimaryStatus::One { node: name(i), timeline: verdict.timeline },
            (None, Some(shown)) => PrimaryStatus::IdentifierMismatch { nodes: self.identifiers(shown) },
            (None, None) if verdict.contenders.is_empty() => PrimaryStatus::None,
            (None, None) => PrimaryStatus::SplitBrain {
                nodes: verdict.contenders.iter().map(|i| name(*i)).collect(),
                timeline: verdict.timeline,
            },
        };
        let topology = Arc::new(Topology { version: self.version, primary, nodes: statuses });
        Snapshot { topology, nodes, primary: verdict.primary, reads: self.config.reads().clone() }
    }

    /// Of which node this one is the same server.
    fn alias(&self, i: usize, verdict: &Verdict) -> Option<String> {
        let of = self.entries[verdict.aliases[i]?].node.name();
        Some(format!("it is the same server as {of}, which serves for both"))
    }

    /// Which node showed which system identifier.
    fn identifiers(&self, shown: &[Option<u64>]) -> Vec<ShownIdentifier> {
        let of = |(entry, shown): (&Entry, &Option<u64>)| {
            let (node, identifier) = (entry.node.name().to_owned(), (*shown)?);
            Some(ShownIdentifier { node, system_identifier: identifier.to_string() })
        };
        self.entries.iter().zip(shown).filter_map(of).collect()
    }

    fn status(&self, entry: &Entry, i: usize, verdict: &Verdict) -> NodeStatus {
        let evidence = entry.condition.sighting.evidence();
        let standing = verdict.standings[i];
        let mut status = NodeStatus {
            name: entry.node.name().to_owned(),
            address: entry.node.config().to_string(),
            zone: entry.node.config().zone().map(str::to_owned),
            tags: entry.node.config().tags().to_vec(),
            standing,
            health: entry.condition.health,
            reason: entry.condition.loss.as_ref().map(ToString::to_string),
            serves_reads: false,
            serves_writes: verdict.primary == Some(i),
            timeline: evidence.map(|evidence| evidence.timeline).filter(|timeline| *timeline > 0),
            position: evidence.map(|evidence| evidence.position),
            lag: verdict.lags[i],
            streaming: evidence.filter(|evidence| evidence.in_recovery).map(|evidence| evidence.streaming),
        };
        let on_primary = standing == Standing::Primary
            && (self.config.reads().fallback != Fallback::Never || self.entries.len() == 1);
        if status.reason.is_none() && evidence.is_some_and(|evidence| evidence.system_identifier.is_none()) {
            status.reason = Some(UNIDENTIFIED.to_owned());
        }
        status.serves_reads = on_primary || self.is_fit(&status) || self.is_last_resort(&status, i, verdict);
        if status.reason.is_none() {
            status.reason = self
                .alias(i, verdict)
                .or_else(|| conflict(i, verdict, &self.entries))
                .or_else(|| parting(verdict.lineages[i]));
        }
        if status.reason.is_none() && standing == Standing::Replica && !self.is_fit(&status) {
            let paused = evidence.is_some_and(|evidence| evidence.replay_paused);
            status.reason = Some(staleness(status.lag, paused, self.config.reads().max_lag));
        }
        status
    }

    /// Whether a replica is well, and fresh enough.
    fn is_fit(&self, status: &NodeStatus) -> bool {
        let reads = self.config.reads();
        is_well(status) && status.lag.is_some_and(|lag| lag.is_within(reads.max_lag, reads.max_lag_bytes))
    }

    /// Whether a node may serve reads even if it is not fit: while there is no primary, nobody has anything fresher.
    ///
    /// One that has parted has rows that were never the set's: no answer is better than those.
    fn is_last_resort(&self, status: &NodeStatus, i: usize, verdict: &Verdict) -> bool {
        verdict.primary.is_none()
            && !matches!(verdict.lineages[i], Lineage::Parted { .. })
            && matches!(status.standing, Standing::Replica | Standing::Contender)
            && matches!(status.health, Health::Up | Health::Full | Health::Unchecked | Health::Suspect)
    }

    /// Whether a node is preferred for its zone.
    fn is_near(&self, node: &Node) -> bool {
        self.config.reads().prefer_zone
            && self.config.zone().is_some()
            && self.config.zone() == node.config().zone()
    }
}

/// Returns `true` if a replica may serve reads once it is fresh enough.
fn is_well(status: &NodeStatus) -> bool {
    status.standing == Standing::Replica
        && matches!(status.health, Health::Up | Health::Full | Health::Unchecked)
}
