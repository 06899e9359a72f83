//! The state that the monitors update, from which the topology is built.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::changes::{has_moved, log_changes, log_lost_history, log_replaced_cluster, same_for_users};
use super::eligibility::{Eligibility, NodeFacts, NodeFilter, ReadDemand, Tier, eligibility};
use super::health::{NodeHealth, ProbeOutcome, Transition};
use super::reason::{UNIDENTIFIED, conflict, parting, staleness};
use super::search::Search;
use super::snapshot::{NodeView, Snapshot};
use crate::config::Config;
use crate::defect::Defect;
use crate::lsn::Lsn;
use crate::options::ReadOptions;
use crate::topology::{
    Health, Lineage, Memory, NodeRole, NodeStatus, PrimaryStatus, Recoveries, Remembered, RoleHistory, Roles,
    Seen, ShownIdentifier, Topology, resolve_roles,
};
use crate::topology::{Node, NodeId, Retired};

/// The state of all nodes, behind one short lock.
pub(crate) struct TopologyState {
    state: Mutex<State>,
    current: ArcSwap<Snapshot>,
    /// Changes when a role or a health changes, not with every probe.
    changes: watch::Sender<Arc<Topology>>,
    /// Start of the search for a primary, while there is one.
    search: watch::Sender<Option<Instant>>,
    /// Knowledge that outlives the program, up to date while it has a receiver.
    remembered: watch::Sender<Remembered>,
}

struct State {
    history: RoleHistory,
    entries: Vec<NodeEntry>,
    /// Removed nodes with connections in use.
    ///
    /// They are still probed, and fenced if necessary.
    leaving: Vec<NodeEntry>,
    config: Arc<Config>,
    version: u64,
    search: Search,
    /// The primary whose answer to a probe is late.
    late: Option<NodeId>,
    /// When the history was forgotten; earlier probes do not count.
    forgotten: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct NodeEntry {
    pub(super) node: Arc<Node>,
    pub(super) node_health: NodeHealth,
}

impl NodeEntry {
    /// Forgets the known position if a probe reached another server process.
    ///
    /// The data may have been rewound or rebuilt. The same process never goes back.
    fn forget_position_of_another_process(&self, outcome: &ProbeOutcome) {
        let ProbeOutcome::Answered(now) = outcome else { return };
        let before = self.node_health.last_seen.observation().and_then(|before| before.server);
        if !before.zip(now.server).is_some_and(|(before, now)| before.is_same_server(&now)) {
            self.node.stats().reset_position(Lsn::default());
        }
    }

    /// Returns `true` if this primary took over from a removed primary.
    ///
    /// The removed node writes, or did so in its last observation.
    fn has_replaced(&self, removed: &Self) -> bool {
        let (Some(primary), Some(old)) =
            (self.node_health.last_seen.observation(), removed.node_health.last_seen.observation())
        else {
            return false;
        };
        let same_server = self.node.config().is_same_server(removed.node.config())
            || primary.server.zip(old.server).is_some_and(|(primary, old)| primary.is_same_server(&old));
        !old.in_recovery && !same_server && primary.system_identifier == old.system_identifier
    }
}

impl TopologyState {
    /// Creates the state with all nodes unknown.
    pub(crate) fn new(config: Arc<Config>, nodes: Vec<Arc<Node>>) -> Self {
        let entries =
            nodes.into_iter().map(|node| NodeEntry { node, node_health: NodeHealth::default() }).collect();
        let mut state = State {
            history: RoleHistory::default(),
            entries,
            leaving: Vec::new(),
            config,
            version: 0,
            search: Search::default(),
            late: None,
            forgotten: None,
        };
        let now = Instant::now();
        let snapshot = Arc::new(state.snapshot(now));
        Self {
            changes: watch::Sender::new(Arc::clone(&snapshot.topology)),
            search: watch::Sender::new(state.search.on(true, true, now)),
            remembered: watch::Sender::default(),
            current: ArcSwap::new(snapshot),
            state: Mutex::new(state),
        }
    }

    /// Returns the current snapshot of the nodes.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Returns how the nodes came to write, in the order of observation.
    pub(crate) fn recoveries(&self) -> Arc<Recoveries> {
        Arc::clone(&self.lock().history.recoveries)
    }

    /// Returns a receiver that changes when a role or a health does.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Topology>> {
        self.changes.subscribe()
    }

    /// Returns a receiver for the start of the search for a primary.
    ///
    /// The value is `None` while there is a healthy primary.
    pub(crate) fn search(&self) -> watch::Receiver<Option<Instant>> {
        self.search.subscribe()
    }

    /// Returns a receiver for what outlives the program.
    pub(crate) fn remembered(&self) -> watch::Receiver<Remembered> {
        let state = self.lock();
        let receiver = self.remembered.subscribe();
        self.remembered.send_replace(state.history.remembered());
        receiver
    }

    /// Adds what an earlier program knew, unless it is about another cluster.
    pub(crate) fn recall(&self, memory: &Memory, now: Instant) {
        let mut state = self.lock();
        if state.history.recall(memory) {
            self.publish(&mut state, now);
        }
    }

    /// Updates the state by a probe's outcome, and acts on the change.
    pub(crate) fn post(&self, node: &Arc<Node>, outcome: ProbeOutcome, now: Instant) {
        let mut state = self.lock();
        if matches!(&outcome, ProbeOutcome::Answered(observation) if state.forgotten.is_some_and(|at| observation.at < at))
        {
            return;
        }
        let reads = state.config.reads().clone();
        let State { entries, leaving, late, .. } = &mut *state;
        let mut known = entries.iter_mut().chain(leaving);
        let Some(entry) = known.find(|entry| entry.node.id() == node.id()) else { return };
        if *late == Some(node.id()) {
            *late = None;
        }
        // The monitor may still hold the node whose settings were replaced.
        let node = Arc::clone(&entry.node);
        let before = entry.node_health.health;
        if matches!(outcome, ProbeOutcome::Answered(_)) {
            node.stats().clear_suspicion();
        }
        entry.forget_position_of_another_process(&outcome);
        let position = match &outcome {
            ProbeOutcome::Answered(observation) => Some(observation.position),
            ProbeOutcome::Missed(..) | ProbeOutcome::Borrowed(..) => None,
        };
        let change = entry.node_health.on(outcome, &reads, now);
        let after = entry.node_health.health;
        if before != after {
            let reason = entry.node_health.probe_error.as_ref().map(ToString::to_string);
            tracing::info!(node = node.name(), %before, %after, reason, "a node's health changed");
            if after == Health::Up {
                node.on_up();
            }
        }
        // Callers would wait for a server that may never answer.
        if change == Transition::Down {
            // It may be rewound or rebuilt before it is back.
            node.stats().reset_position(Lsn::default());
            if !Defect::ReadsStayOnLostNode.is_seeded() {
                node.close_now();
            }
        }
        self.publish(&mut state, now);
        // Only now, because the position of a promoted node is on a history that the snapshot before did not have.
        if let Some(position) = position {
            node.stats().note_position(position);
        }
    }

    /// Starts a search if the primary's answer to a probe is late.
    ///
    /// The primary may hang, and another node may be promoted before two probes have timed out.
    pub(crate) fn post_late(&self, node: &Node, now: Instant) {
        let mut state = self.lock();
        if !self.is_primary(node) || !state.search.allows_alarm(now) {
            return;
        }
        state.late = Some(node.id());
        let search = state.search.on(true, true, now);
        self.search.send_if_modified(|was| std::mem::replace(was, search) != search);
    }

    /// Forgets the nodes' state and history, and probes all of them again.
    pub(crate) fn forget(&self, now: Instant) {
        let mut state = self.lock();
        state.history.forget(now);
        state.forgotten = Some(now);
        for entry in &mut state.entries {
            entry.node_health = NodeHealth::default();
            entry.node.stats().wake_monitor();
        }
        self.publish(&mut state, now);
    }

    /// Replaces the nodes.
    ///
    /// Nodes that stay keep their state, and removed nodes are probed until they are drained.
    pub(crate) fn replace(&self, config: Arc<Config>, nodes: Vec<Arc<Node>>) -> Vec<Retired> {
        let mut state = self.lock();
        let mut old = std::mem::take(&mut state.entries);
        old.append(&mut state.leaving);
        let mut replaced = Vec::new();
        let keep = |node: Arc<Node>| {
            let Some(i) = old.iter().position(|entry| entry.node.id() == node.id()) else {
                return NodeEntry { node, node_health: NodeHealth::default() };
            };
            let known = old.swap_remove(i);
            if !Arc::ptr_eq(&known.node, &node) {
                replaced.extend(node.take_over(&known.node));
            }
            NodeEntry { node, ..known }
        };
        state.entries = nodes.into_iter().map(keep).collect();
        state.leaving = old;
        state.config = config;
        self.publish(&mut state, Instant::now());
        // Only now, because no caller is sent to the replaced pools any more.
        Node::retire(&replaced);
        for entry in &state.leaving {
            entry.node.drain();
        }
        replaced
    }

    /// Returns `true` if a node is configured, or connections to it are in use.
    pub(crate) fn is_watched(&self, node: &Node) -> bool {
        let state = self.lock();
        state.entries.iter().chain(&state.leaving).any(|entry| entry.node.id() == node.id())
    }

    /// Returns `true` if a node is fenced, so that no pool connects to it.
    pub(crate) fn is_fenced(&self, node: &Node) -> bool {
        let snapshot = self.current.load();
        snapshot.nodes.iter().any(|view| view.node.id() == node.id() && view.role.is_fenced())
    }

    /// Returns `true` if a node is the primary.
    pub(crate) fn is_primary(&self, node: &Node) -> bool {
        let snapshot = self.current.load();
        snapshot.primary.is_some_and(|primary| snapshot.nodes[primary].node.id() == node.id())
    }

    /// Returns the nodes, including removed ones that are not drained yet.
    pub(crate) fn nodes(&self) -> Vec<Arc<Node>> {
        let state = self.lock();
        state.entries.iter().chain(&state.leaving).map(|entry| Arc::clone(&entry.node)).collect()
    }

    fn publish(&self, state: &mut State, now: Instant) {
        let snapshot = Arc::new(state.snapshot(now));
        // Fence first: no caller may learn of the new primary while the old one still takes writes.
        if Defect::PublishedBeforeFenced.is_seeded() {
            let late = Arc::clone(&snapshot);
            tokio::spawn(async move {
                sleep(Duration::from_millis(50)).await;
                late.fence();
            });
        } else if !Defect::NoFence.is_seeded() {
            snapshot.fence();
        }
        if let Some(primary) = snapshot.primary {
            snapshot.nodes[primary].node.open_writes();
        }
        state.fence_leaving(&snapshot);
        let before = self.current.swap(Arc::clone(&snapshot));
        log_changes(&before.topology, &snapshot.topology);
        let suspect = |i: usize| snapshot.topology.nodes[i].health != Health::Up;
        let is_late = |i: usize| state.late == Some(snapshot.nodes[i].node.id());
        let is_searching = snapshot.primary.is_none_or(|i| suspect(i) || is_late(i));
        let search = state.search.on(is_searching, has_moved(&before.topology, &snapshot.topology), now);
        self.search.send_if_modified(|was| std::mem::replace(was, search) != search);
        if self.remembered.receiver_count() > 0 {
            let remembered = state.history.remembered();
            self.remembered.send_if_modified(|was| {
                let changed = *was != remembered;
                *was = remembered;
                changed
            });
        }
        self.changes.send_if_modified(|topology| {
            let changed = !same_for_users(topology, &snapshot.topology);
            if changed {
                *topology = Arc::clone(&snapshot.topology);
            }
            changed
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under this lock panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Fences a removed primary once another server has taken over.
    ///
    /// Drained nodes are dropped.
    fn fence_leaving(&mut self, snapshot: &Snapshot) {
        let primary = snapshot.primary.map(|primary| &self.entries[primary]);
        self.leaving.retain(|entry| {
            if primary.is_some_and(|primary| primary.has_replaced(entry)) {
                entry.node.close_writes();
                entry.node.close_now();
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
            last_seen: &entry.node_health.last_seen,
            promotable: entry.node.config().promotable(),
        });
        let seen: Vec<Seen<'_>> = seen.collect();
        let shows_ours = |entry: &NodeEntry| {
            let observation = entry.node_health.last_seen.observation();
            observation.is_some_and(|seen| seen.system_identifier == self.history.system_identifier)
        };
        self.history.is_elsewhere = self.leaving.iter().any(shows_ours);
        let roles = resolve_roles(&mut self.history, &seen, now);
        if let (Some(before), Some(now)) = (roles.replaced, roles.system_identifier) {
            log_replaced_cluster(before, now);
        }
        if let Some(lost) = &roles.lost {
            log_lost_history(lost, roles.timeline);
        }
        self.version += 1;
        let statuses: Vec<NodeStatus> =
            self.entries.iter().enumerate().map(|(i, entry)| self.status(entry, i, &roles)).collect();
        let view = |(i, (entry, status)): (usize, (&NodeEntry, &NodeStatus))| NodeView {
            node: Arc::clone(&entry.node),
            role: status.role,
            diverged: has_diverged(i, &roles),
            follows: roles.lineages[i] == Lineage::Shared,
            observed_at: entry.node_health.last_seen.observation().map(|observation| observation.at),
            ejection: entry.node_health.ejection.clone(),
            probe_error: entry.node_health.probe_error.clone(),
        };
        let nodes = self.entries.iter().zip(&statuses).enumerate().map(view).collect();
        for (i, entry) in self.entries.iter().enumerate() {
            let follows = roles.by_node[i] == NodeRole::Replica && roles.lineages[i] == Lineage::Shared;
            let timeline = if follows { roles.ancestry.timeline() } else { 0 };
            entry.node.stats().note_followed_timeline(timeline);
        }
        let name = |i: usize| self.entries[i].node.name().to_owned();
        let primary = match (roles.primary, &roles.mismatch) {
            (Some(i), _) => PrimaryStatus::One { node: name(i), timeline: roles.timeline },
            (None, Some(shown)) => PrimaryStatus::IdentifierMismatch { nodes: self.identifiers(shown) },
            (None, None) if roles.conflicting.is_empty() => PrimaryStatus::None,
            (None, None) => PrimaryStatus::SplitBrain {
                nodes: roles.conflicting.iter().map(|i| name(*i)).collect(),
                timeline: roles.timeline,
            },
        };
        let topology = Arc::new(Topology { version: self.version, primary, nodes: statuses });
        Snapshot {
            topology,
            nodes,
            primary: roles.primary,
            system_identifier: roles.system_identifier,
            ancestry: roles.ancestry,
            config: Arc::clone(&self.config),
        }
    }

    /// Returns the name of the node that this one is an alias of.
    fn alias(&self, i: usize, roles: &Roles) -> Option<String> {
        let of = self.entries[roles.aliases[i]?].node.name();
        Some(format!("it is the same server as {of}, which serves for both"))
    }

    /// Returns the system identifier that each node showed.
    fn identifiers(&self, shown: &[Option<u64>]) -> Vec<ShownIdentifier> {
        let of = |(entry, shown): (&NodeEntry, &Option<u64>)| {
            let (node, identifier) = (entry.node.name().to_owned(), (*shown)?);
            Some(ShownIdentifier { node, system_identifier: identifier.to_string() })
        };
        self.entries.iter().zip(shown).filter_map(of).collect()
    }

    fn status(&self, entry: &NodeEntry, i: usize, roles: &Roles) -> NodeStatus {
        let observation = entry.node_health.last_seen.observation();
        let role = roles.by_node[i];
        let mut status = NodeStatus {
            name: entry.node.name().to_owned(),
            address: entry.node.config().to_string(),
            zone: entry.node.config().zone().map(str::to_owned),
            tags: entry.node.config().tags().to_vec(),
            role,
            health: entry.node_health.health,
            reason: entry.node_health.probe_error.as_ref().map(ToString::to_string),
            serves_reads: false,
            serves_writes: roles.primary == Some(i),
            timeline: observation.map(|observation| observation.timeline).filter(|timeline| *timeline > 0),
            position: observation.map(|observation| observation.position),
            lag: roles.lags[i],
            streaming: observation
                .filter(|observation| observation.in_recovery)
                .map(|observation| observation.streaming),
        };
        if status.reason.is_none()
            && observation.is_some_and(|observation| observation.system_identifier.is_none())
        {
            status.reason = Some(UNIDENTIFIED.to_owned());
        }
        let tier = self.eligibility(&status, i, roles).tier();
        status.serves_reads = tier.is_some();
        if status.reason.is_none() {
            status.reason = self
                .alias(i, roles)
                .or_else(|| conflict(i, roles, &self.entries))
                .or_else(|| parting(roles.lineages[i]));
        }
        let is_fit = matches!(tier, Some(Tier::Near | Tier::Fit));
        if status.reason.is_none() && role == NodeRole::Replica && !is_fit {
            let paused = observation.is_some_and(|observation| observation.replay_paused);
            status.reason = Some(staleness(status.lag, paused, self.config.reads().max_lag));
        }
        status
    }

    /// Returns `true` if a node may serve a plain read, apart from passing trouble.
    fn eligibility(&self, status: &NodeStatus, i: usize, roles: &Roles) -> Eligibility {
        let options = ReadOptions::new();
        let read = ReadDemand::new(&options, &self.config, NodeFilter::All, None, roles.primary.is_some());
        let facts = NodeFacts {
            id: self.entries[i].node.id(),
            role: status.role,
            health: status.health,
            lag: status.lag,
            diverged: has_diverged(i, roles),
            suspected: false,
            ejected: false,
            read_limit: None,
            in_flight: 0,
            zone: status.zone.as_deref(),
            follows: roles.lineages[i] == Lineage::Shared,
            position: Lsn::default(),
        };
        eligibility(&facts, &read)
    }
}

/// Returns `true` if a node's history has parted from the primary's.
fn has_diverged(i: usize, roles: &Roles) -> bool {
    matches!(roles.lineages[i], Lineage::Parted { .. })
}

#[cfg(test)]
pub(super) mod tests;
