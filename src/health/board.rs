//! Where the monitors post what they see, and the topology comes from.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::Instant;

use super::condition::{Change, Condition, Look};
use super::recovery::Recovery;
use super::search::Search;
use crate::config::{Config, Fallback, ReadSettings};
use crate::error::ConnectError;
use crate::node::{Node, Retired};
use crate::topology::select::{Candidate, Tier};
use crate::topology::{
    Health, Lag, Lineage, Loss, LostHistory, Memory, NodeStatus, PrimaryStatus, Recoveries, Seen,
    ShownIdentifier, Standing, Topology, Verdict, judge,
};

/// The nodes as they stand at one moment, for the set's own use.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// What users see of it.
    pub(crate) topology: Arc<Topology>,
    /// The nodes, in the order of the topology.
    pub(crate) nodes: Vec<Placed>,
    /// The primary, if there is exactly one.
    pub(crate) primary: Option<usize>,
    reads: ReadSettings,
}

/// A node and its place.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) node: Arc<Node>,
    pub(crate) standing: Standing,
    /// Whether it is a replica, well, and fresh enough.
    fit: bool,
    /// Whether it may serve what nobody can serve better.
    last_resort: bool,
    near: bool,
    recovery: Recovery,
    loss: Option<Loss>,
}

impl Placed {
    /// The error with which its monitor could not connect, if that is why the node is not there.
    pub(crate) fn connect_error(&self) -> Option<&Arc<ConnectError>> {
        match &self.loss {
            Some(Loss::Connect(error)) => Some(error),
            _ => None,
        }
    }
}

impl Snapshot {
    /// Returns `true` if the monitors of all nodes keep what is known of them up to date.
    pub(crate) fn is_up_to_date(&self, now: Instant) -> bool {
        !self.nodes.iter().any(|placed| placed.node.vitals().watched.is_overdue(now))
    }

    /// The nodes that may serve a read now.
    pub(crate) fn candidates(&self, now: Instant) -> Vec<Candidate> {
        let fallback = self.fallback();
        let candidate = |(i, placed): (usize, &Placed)| {
            let vitals = placed.node.vitals();
            let load = vitals.in_flight.load(std::sync::atomic::Ordering::Relaxed);
            let ramping =
                || placed.recovery.allowance(&self.reads, now).is_some_and(|allowed| load >= allowed);
            let as_replica = || match placed.near {
                _ if placed.recovery.is_ejected(now) || ramping() => Tier::Recovering,
                true => Tier::Near,
                false => Tier::Fit,
            };
            let tier = match placed.standing {
                _ if placed.last_resort => Tier::Stale,
                Standing::Primary if fallback == Fallback::Always && vitals.is_doubtful(now) => {
                    Tier::Suspected
                }
                Standing::Primary if fallback == Fallback::Always => as_replica(),
                Standing::Primary if fallback == Fallback::WhenUnfit => Tier::Fallback,
                Standing::Replica if placed.fit && vitals.is_doubtful(now) => Tier::Suspected,
                Standing::Replica if placed.fit => as_replica(),
                _ => return None,
            };
            let (latency, weight) = (vitals.latency.average(), placed.node.config().weight());
            let overdue = vitals.overdue_answers();
            Some(Candidate { node: i, tier, load, overdue, latency, weight })
        };
        self.nodes.iter().enumerate().filter_map(candidate).collect()
    }

    /// The policy for reads on the primary; without any other node it is no fallback.
    fn fallback(&self) -> Fallback {
        if self.nodes.len() == 1 { Fallback::Always } else { self.reads.fallback }
    }
}

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
struct Entry {
    node: Arc<Node>,
    condition: Condition,
}

impl Entry {
    /// Whether this primary took over from a node that was removed and writes, or did when it was last seen.
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
        // Only now, when nobody is sent there any more.
        Node::retire(&replaced);
        for entry in &state.leaving {
            entry.node.drain();
        }
        replaced
    }

    /// Whether a node is to be watched: it is configured, or connections to it are in use.
    pub(crate) fn is_watched(&self, node: &Node) -> bool {
        let state = self.lock();
        state.entries.iter().chain(&state.leaving).any(|entry| entry.node.id() == node.id())
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
            if matches!(placed.standing, Standing::StalePrimary | Standing::Foreign | Standing::NotPromotable)
            {
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
        let lag = status.lag.unwrap_or(Lag { bytes: None, time: None });
        let fresh = lag.time.is_some_and(|time| time <= reads.max_lag)
            && reads.max_lag_bytes.is_none_or(|limit| lag.bytes.is_some_and(|bytes| bytes <= limit));
        status.standing == Standing::Replica
            && matches!(status.health, Health::Up | Health::Full | Health::Unchecked)
            && fresh
    }

    /// Whether a node may serve reads though it is not fit: while there is no primary, nobody has anything fresher.
    ///
    /// One that has parted has rows that were never the set's: no answer is better than those.
    fn is_last_resort(&self, status: &NodeStatus, i: usize, verdict: &Verdict) -> bool {
        verdict.primary.is_none()
            && !matches!(verdict.lineages[i], Lineage::Parted { .. })
            && matches!(status.standing, Standing::Replica | Standing::Contender)
            && matches!(status.health, Health::Up | Health::Full | Health::Unchecked | Health::Suspect)
            && !self.is_fit(status)
    }

    /// Whether a node is preferred for its zone.
    fn is_near(&self, node: &Node) -> bool {
        self.config.reads().prefer_zone
            && self.config.zone().is_some()
            && self.config.zone() == node.config().zone()
    }
}

/// The probe's role may not ask which cluster the node belongs to.
const UNIDENTIFIED: &str = "the probe may not ask for its system identifier: GRANT EXECUTE ON FUNCTION \
    pg_control_system(), pg_control_checkpoint(), pg_control_recovery() TO the role of its URL";

/// Why a replica's rows may not be the primary's.
fn parting(lineage: Lineage) -> Option<String> {
    match lineage {
        Lineage::Shared => None,
        Lineage::Unproven { fork } => Some(format!(
            "nothing shows yet that it follows the primary, whose history began at {fork}: it may still follow the old one"
        )),
        Lineage::Parted { fork: Some(fork) } => Some(format!(
            "its history parted from the primary's at {fork}: it has rows that the primary does not have; rebuild it"
        )),
        Lineage::Parted { fork: None } => Some(
            "its history parted from the primary's: it has rows that the primary does not have; rebuild it"
                .to_owned(),
        ),
    }
}

/// Why a node that claims to be a primary is none, or may not be used.
fn conflict(i: usize, verdict: &Verdict, entries: &[Entry]) -> Option<String> {
    let evidence = entries[i].condition.sighting.evidence()?;
    let shown = evidence.system_identifier;
    match verdict.standings[i] {
        Standing::NotPromotable => Some(format!(
            "it writes timeline {}, and `promotable = false` says that it must never be a primary: rebuild it as a standby",
            evidence.timeline
        )),
        Standing::StalePrimary => Some(format!(
            "it writes timeline {}, and timeline {} was seen: rebuild it as a standby, or rebuild every node of the higher \
             timeline from it",
            evidence.timeline, verdict.timeline
        )),
        Standing::Contender if verdict.contenders.len() > 1 => {
            let others = verdict.contenders.iter().filter(|other| **other != i);
            let others: Vec<_> = others.map(|other| entries[*other].node.name()).collect();
            Some(format!("it writes timeline {}, as did {}: {REMEDY}", evidence.timeline, others.join(", ")))
        }
        Standing::Foreign => Some(format!(
            "its system identifier is {}, and that of the set {}: {FORGET}",
            shown?, verdict.system_identifier?
        )),
        Standing::Unknown | Standing::Contender if verdict.mismatch.is_some() => {
            Some(format!("its system identifier is {}, and other nodes show another one: {FORGET}", shown?))
        }
        _ => None,
    }
}

const REMEDY: &str = "rebuild all but one as standbys (a stopped one still counts), remove them from the configuration, or \
    let `forget_history` decide for the one that is left";
const FORGET: &str = "correct the configuration, or call `forget_history` after a change of the cluster";

fn staleness(lag: Option<Lag>, paused: bool, limit: Duration) -> String {
    let paused = if paused { "; its replay is paused" } else { "" };
    match lag.and_then(|lag| lag.time) {
        Some(time) => {
            format!("{:.1} s behind, more than {limit:?} (`reads.max_lag`){paused}", time.as_secs_f64())
        }
        None if lag.is_some_and(|lag| lag.bytes.is_some()) => {
            format!("further behind than this program has watched the primary, so its lag is unknown{paused}")
        }
        None => format!("how far it is behind is unknown{paused}"),
    }
}

/// Whether two topologies differ in nothing but measurements.
fn same_for_users(a: &Topology, b: &Topology) -> bool {
    let of = |node: &NodeStatus| {
        (node.name.clone(), node.standing, node.health, node.serves_reads, node.serves_writes)
    };
    a.primary == b.primary && a.nodes.iter().map(of).eq(b.nodes.iter().map(of))
}

/// Whether a node went down or came back, or a role changed: then a primary may be found soon.
fn has_moved(before: &Topology, after: &Topology) -> bool {
    let is_there =
        |node: &NodeStatus| !matches!(node.health, Health::Unseen | Health::Lost | Health::Starting);
    let of = |node: &NodeStatus| (node.standing, is_there(node));
    !before.nodes.iter().map(of).eq(after.nodes.iter().map(of))
}

fn log_lost_history(lost: &LostHistory, now: u32) {
    tracing::error!(
        timeline = lost.timeline,
        fork = lost.fork.map(|fork| fork.to_string()),
        position = %lost.position,
        now,
        "a timeline is gone: every node that showed it is on a lower one; what was written on it is lost"
    );
}

fn log_changes(before: &Topology, after: &Topology) {
    if before.primary != after.primary {
        match &after.primary {
            PrimaryStatus::One { node, timeline } => tracing::info!(node, timeline, "there is a primary"),
            PrimaryStatus::None => tracing::warn!("there is no primary"),
            PrimaryStatus::SplitBrain { nodes, timeline } => {
                tracing::error!(
                    ?nodes,
                    timeline,
                    "split brain: writes are refused until one primary is left"
                );
            }
            PrimaryStatus::IdentifierMismatch { nodes } => {
                let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
                tracing::error!(?nodes, "the nodes belong to different clusters: writes are refused");
            }
        }
    }
    for node in &after.nodes {
        let stood = before.node(&node.name).map(|node| node.standing);
        if stood != Some(node.standing)
            && matches!(node.standing, Standing::StalePrimary | Standing::Foreign | Standing::NotPromotable)
        {
            tracing::warn!(node = node.name, standing = %node.standing, "a node is fenced");
        }
    }
}
