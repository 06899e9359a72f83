//! The simulated cluster: its servers, what passes between them, and the truth about its transactions.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::node::{Node, Power, Standby};
use super::wal::{Body, Entry};
use crate::network::pipe::Pipe;
use crate::observer::Observer;
use crate::schedule::Schedule;

/// The system identifier of every node.
pub(crate) const IDENTIFIER: i64 = 7_300_000_000_000_000_001;

/// A handle of the cluster.
#[derive(Clone)]
pub(crate) struct Cluster(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Wakes the task that lets time pass in the cluster.
    poke: Notify,
    /// Wakes what waits for a change of any node.
    changed: Notify,
    observer: Arc<Observer>,
}

/// The state of the cluster.
pub(crate) struct State {
    pub(crate) nodes: Vec<Node>,
    pub(crate) sessions: BTreeMap<i32, SessionHandle>,
    pub(crate) links: Vec<(usize, Weak<Pipe>)>,
    /// The rows that were committed, with the node that did.
    pub(crate) commits: Vec<(Entry, usize)>,
    pub(crate) violations: Vec<String>,
    /// `true` if a COMMIT waits for one standby.
    pub(crate) synchronous: bool,
    /// `true` if the role may see the timeline that a standby receives.
    pub(crate) privileged: bool,
    /// `true` if an operator may end a later timeline in favour of an earlier one.
    pub(crate) reverts: bool,
    /// `true` once an operator has chosen another history than that of the highest timeline.
    pub(crate) reverted: bool,
    pub(crate) rng: Rng,
    ticks: BinaryHeap<Reverse<(Instant, u64, Tick)>>,
    began: Instant,
    numbers: u64,
    pids: i32,
}

/// A session at a server.
#[derive(Clone)]
pub(crate) struct SessionHandle {
    pub(crate) node: usize,
    pub(crate) secret: i32,
    pub(crate) cancel: Arc<Notify>,
    /// Cancelled by an administrator's command.
    pub(crate) terminated: CancellationToken,
}

/// Something that a server does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tick {
    Receive { node: usize, run: u64 },
    Replay { node: usize, run: u64 },
    Recovered { node: usize, run: u64 },
    Checkpoint { node: usize, run: u64 },
    Snapshot,
    ResetStalled { node: usize },
}

/// Time after which the kernel gives up a connection whose bytes are not acknowledged.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time before a standby asks again in vain.
const RETRY: Duration = Duration::from_secs(5);

impl Cluster {
    /// Creates a primary with standbys, all running.
    pub(crate) fn new(schedule: &Schedule, rng: Rng) -> Self {
        let Schedule { nodes, synchronous, privileged, reverts, .. } = *schedule;
        let now = Instant::now();
        let standby = |upstream| Standby { upstream, receiver: None, receives: 1, due: Default::default() };
        let all = (0..nodes).map(|node| Node::new((node > 0).then(|| standby(0)), now)).collect();
        let state = State {
            nodes: all,
            sessions: BTreeMap::new(),
            links: Vec::new(),
            commits: Vec::new(),
            violations: Vec::new(),
            synchronous,
            privileged,
            reverts,
            reverted: false,
            rng,
            ticks: BinaryHeap::new(),
            began: now,
            numbers: 0,
            pids: 100,
        };
        let (state, poke, changed, observer) =
            (Mutex::new(state), Notify::new(), Notify::new(), Arc::default());
        let cluster = Self(Arc::new(Inner { state, poke, changed, observer }));
        {
            let mut state = cluster.lock();
            for node in 0..nodes {
                state.nodes[node].started_at = state.now_micros() + i64::try_from(node).unwrap_or(0);
                let number = state.number();
                if node == 0 {
                    state.nodes[0].append(number, Body::Other);
                    state.nodes[0].flushed = 1;
                }
                state.receive_soon(node);
            }
            state.tick(now + Duration::from_secs(15), Tick::Snapshot);
        }
        cluster
    }

    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked { state: self.0.state.lock().unwrap_or_else(PoisonError::into_inner), inner: &self.0 }
    }

    pub(crate) fn observer(&self) -> &Arc<Observer> {
        &self.0.observer
    }

    /// Waits for a change of any node.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.0.changed.notified()
    }

    /// Waits until a node's processes run on.
    pub(crate) async fn until_awake(&self, node: usize) {
        loop {
            let changed = self.changed();
            if !self.lock().nodes[node].hung {
                return;
            }
            changed.await;
        }
    }

    /// Lets time pass in the cluster.
    pub(crate) async fn run(self) {
        loop {
            let next = self.lock().run_due();
            match next {
                Some(next) => {
                    tokio::select! {
                        biased;
                        () = self.0.poke.notified() => {}
                        () = sleep_until(next) => {}
                    }
                }
                None => self.0.poke.notified().await,
            }
        }
    }
}

/// The state under its lock; what waits for a change is woken behind it.
pub(crate) struct Locked<'c> {
    state: MutexGuard<'c, State>,
    inner: &'c Inner,
}

impl std::ops::Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl std::ops::DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Locked<'_> {
    /// Wakes what depends on the state, after a change.
    pub(crate) fn wake(&self) {
        self.inner.poke.notify_one();
        self.inner.changed.notify_waiters();
    }

    /// Forgets what the set knows of a node whose data directory is replaced.
    pub(crate) fn replaced(&self, node: usize) {
        self.inner.observer.forget(&name(node));
    }

    fn run_due(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut changed = false;
        while let Some(Reverse((due, _, tick))) = self.ticks.peek().copied() {
            if due > now {
                break;
            }
            self.ticks.pop();
            self.on_tick(tick, now);
            changed = true;
        }
        if changed {
            self.inner.changed.notify_waiters();
        }
        self.ticks.peek().map(|Reverse((due, ..))| *due)
    }
}

/// Returns the name of a node.
pub(crate) fn name(node: usize) -> String {
    format!("n{node}")
}

impl State {
    pub(crate) fn now_micros(&self) -> i64 {
        1_700_000_000_000_000 + i64::try_from(self.began.elapsed().as_micros()).unwrap_or(0)
    }

    /// Returns the number of the next record.
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(crate) fn pid(&mut self) -> i32 {
        self.pids += 1;
        self.pids
    }

    fn tick(&mut self, at: Instant, tick: Tick) {
        let number = self.number();
        self.ticks.push(Reverse((at, number, tick)));
    }

    fn soon(&mut self) -> Instant {
        Instant::now() + Duration::from_millis(self.rng.u64(1..4))
    }

    /// Lets a standby receive what is new, a moment from now.
    pub(crate) fn receive_soon(&mut self, node: usize) {
        let (at, run) = (self.soon(), self.nodes[node].run);
        self.tick(at, Tick::Receive { node, run });
    }

    /// Lets the standbys of a node receive what is new there.
    pub(crate) fn feed(&mut self, upstream: usize) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].standby.as_ref().is_some_and(|standby| standby.upstream == upstream) {
                self.receive_soon(node);
            }
        }
    }

    /// Lets a node serve after a start.
    pub(crate) fn recover_after(&mut self, node: usize, pause: Duration) {
        self.nodes[node].power = Power::Starting;
        let run = self.nodes[node].run;
        self.tick(Instant::now() + pause, Tick::Recovered { node, run });
    }

    /// Writes a node's timeline to its control file, after a while.
    pub(crate) fn checkpoint_after(&mut self, node: usize, pause: Duration) {
        let run = self.nodes[node].run;
        self.tick(Instant::now() + pause, Tick::Checkpoint { node, run });
    }

    /// Lets the kernel give up the connections to a node that stay stalled.
    pub(crate) fn reset_if_stalled(&mut self, node: usize) {
        self.tick(Instant::now() + USER_TIMEOUT, Tick::ResetStalled { node });
    }

    pub(crate) fn can_reach(&self, a: usize, b: usize) -> bool {
        let is_there = |node: &Node| node.is_serving() && !node.isolated && !node.lost;
        is_there(&self.nodes[a]) && is_there(&self.nodes[b])
    }

    /// Returns `true` if a primary has a row that another node may have committed.
    ///
    /// Of the primaries, those on a timeline that the set has not seen do not count.
    pub(crate) fn has_taken_over(&self, entry: Entry, seen: u32) -> bool {
        let is_seen = |node: &Node| !node.in_recovery() && node.timeline <= seen;
        let primaries = || self.nodes.iter().enumerate().filter(|(_, node)| is_seen(node));
        let newest = primaries().max_by_key(|(_, node)| node.timeline).map(|(i, _)| i);
        let committed_by = self.commits.iter().find(|(of, _)| *of == entry).map(|(_, node)| *node);
        let counts = |i: usize| Some(i) == newest || Some(i) != committed_by;
        primaries().any(|(i, node)| counts(i) && node.database.count(entry) > 0)
    }

    /// Returns `true` if a standby has flushed the first `n` records of a node.
    pub(crate) fn is_replicated(&self, upstream: usize, n: usize) -> bool {
        self.nodes.iter().enumerate().any(|(i, node)| {
            let streams = node
                .standby
                .as_ref()
                .is_some_and(|standby| standby.upstream == upstream && standby.receiver.is_some());
            streams && node.wal.len() >= n && self.can_reach(i, upstream)
        })
    }

    fn on_tick(&mut self, tick: Tick, now: Instant) {
        match tick {
            Tick::Receive { node, run } if self.nodes[node].run == run => self.receive(node, now),
            Tick::Replay { node, run } if self.nodes[node].run == run => self.replay(node, now),
            Tick::Recovered { node, run } if self.nodes[node].run == run => {
                let (number, started_at) = (self.number(), self.now_micros());
                let this = &mut self.nodes[node];
                this.recover(number, started_at);
                this.note_change(now);
                self.receive_soon(node);
                self.feed(node);
            }
            Tick::Checkpoint { node, run } if self.nodes[node].run == run => {
                let this = &mut self.nodes[node];
                this.control_timeline =
                    if this.in_recovery() { this.wal.timeline(this.replayed) } else { this.timeline };
            }
            Tick::Snapshot => {
                for node in 0..self.nodes.len() {
                    if self.nodes[node].is_serving() && !self.nodes[node].in_recovery() {
                        let number = self.number();
                        self.nodes[node].append(number, Body::Other);
                        self.nodes[node].flushed = self.nodes[node].wal.len();
                        self.feed(node);
                    }
                }
                self.tick(now + Duration::from_secs(15), Tick::Snapshot);
            }
            Tick::ResetStalled { node } if self.nodes[node].partitioned || self.nodes[node].lost => {
                self.each_link(node, |pipe| pipe.reset());
            }
            _ => {}
        }
    }

    fn receive(&mut self, node: usize, now: Instant) {
        let Some(upstream) = self.nodes[node].standby.as_ref().map(|standby| standby.upstream) else {
            return;
        };
        if upstream == node || !self.can_reach(node, upstream) {
            let is_gone = !self.nodes[upstream].is_serving();
            if let Some(standby) = self.nodes[node].standby.as_mut().filter(|_| is_gone) {
                standby.receiver = None;
            }
            return;
        }
        let pid = self.pid();
        let [this, from] = self.nodes.get_disjoint_mut([node, upstream]).expect("two nodes");
        let before = this.timeline;
        if !this.receive(from, pid, now) {
            let run = this.run;
            self.tick(now + RETRY, Tick::Receive { node, run });
            return;
        }
        if self.nodes[node].timeline != before {
            // The next restartpoint is often minutes away.
            let pause = Duration::from_millis(self.rng.u64(500..30_000));
            self.checkpoint_after(node, pause);
        }
        self.replay(node, now);
        self.feed(node);
    }

    pub(crate) fn replay(&mut self, node: usize, now: Instant) {
        if let Some(next) = self.nodes[node].replay_due(now) {
            let run = self.nodes[node].run;
            self.tick(next, Tick::Replay { node, run });
        }
    }

    pub(crate) fn each_link(&mut self, node: usize, act: impl Fn(&Pipe)) {
        self.links.retain(|(of, pipe)| match pipe.upgrade() {
            Some(pipe) if *of == node => {
                act(&pipe);
                true
            }
            Some(_) => true,
            None => false,
        });
    }
}
