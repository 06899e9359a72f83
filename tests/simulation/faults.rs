//! The faults, what an operator or a high-availability tool does, and the repair at the end.

use std::time::Duration;

use tokio::time::Instant;

use crate::server::cluster::{Cluster, Locked};
use crate::server::node::{Ended, Power, Standby};

/// An event of the cluster; one that is not possible does nothing, so each subset of a schedule is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The processes end at once, and what was not flushed is lost.
    Kill(usize),
    /// The machine is gone: nothing answers.
    Lose(usize),
    /// The server is stopped in order.
    Stop(usize),
    Start(usize),
    /// The processes stand still (`SIGSTOP`).
    Hang(usize),
    Wake(usize),
    /// No byte passes between the node and the set.
    Partition(usize),
    Heal(usize),
    /// No byte passes between the node and other servers.
    Isolate(usize),
    Rejoin(usize),
    /// Each byte takes these milliseconds longer, in each direction.
    Slow(usize, u32),
    /// Replay is delayed by these milliseconds.
    Lag(usize, u32),
    PauseReplay(usize),
    ResumeReplay(usize),
    /// The node has no connection slot left.
    Full(usize),
    NotFull(usize),
    /// An administrator ends all sessions.
    Terminate(usize),
    /// All connections are reset.
    Cut(usize),
    /// The next COMMITs fail with 40001.
    Conflicts(usize, u32),
    Promote(usize),
    /// A standby follows another node.
    Follow(usize, usize),
    /// A node gets a copy of another one's data, and follows it.
    Rebuild(usize, usize),
}

/// Applies an event.
pub(crate) fn apply(cluster: &Cluster, fault: Fault) {
    let mut state = cluster.lock();
    act(&mut state, fault, Instant::now());
    state.wake();
}

fn act(state: &mut Locked<'_>, fault: Fault, now: Instant) {
    match fault {
        Fault::Kill(node) => stop(state, node, Ended::Crashed, now),
        Fault::Lose(node) => {
            state.each_link(node, |pipe| pipe.set_stalled(true));
            state.nodes[node].lost = true;
            state.reset_if_stalled(node);
            stop(state, node, Ended::Crashed, now);
        }
        Fault::Stop(node) => {
            if state.nodes[node].is_serving() {
                terminate(state, node);
                drain(state, node);
                stop(state, node, Ended::Cleanly, now);
            }
        }
        Fault::Start(node) => start(state, node, now),
        Fault::Hang(node) => {
            if state.nodes[node].power == Power::Running {
                state.nodes[node].hung = true;
                state.nodes[node].note_change(now);
            }
        }
        Fault::Wake(node) => {
            state.nodes[node].hung = false;
            resume(state, node, now);
        }
        Fault::Partition(node) => {
            state.nodes[node].partitioned = true;
            state.nodes[node].note_change(now);
            state.each_link(node, |pipe| pipe.set_stalled(true));
            state.reset_if_stalled(node);
        }
        Fault::Heal(node) => {
            state.nodes[node].partitioned = false;
            if !state.nodes[node].lost {
                state.each_link(node, |pipe| pipe.set_stalled(false));
            }
            resume(state, node, now);
        }
        Fault::Isolate(node) => {
            state.nodes[node].isolated = true;
            state.nodes[node].note_change(now);
        }
        Fault::Rejoin(node) => {
            state.nodes[node].isolated = false;
            resume(state, node, now);
        }
        Fault::Slow(node, millis) => {
            let slowness = Duration::from_millis(millis.into());
            state.nodes[node].slowness = slowness;
            state.nodes[node].note_change(now);
            state.each_link(node, |pipe| pipe.set_slowness(slowness));
        }
        Fault::Lag(node, millis) => {
            state.nodes[node].replay_delay = Duration::from_millis(millis.into());
            state.nodes[node].note_change(now);
        }
        Fault::PauseReplay(node) => {
            if state.nodes[node].in_recovery() {
                state.nodes[node].replay_paused = true;
                state.nodes[node].note_change(now);
            }
        }
        Fault::ResumeReplay(node) => {
            state.nodes[node].replay_paused = false;
            state.nodes[node].note_change(now);
            state.replay(node, now);
        }
        Fault::Full(node) | Fault::NotFull(node) => {
            state.nodes[node].full = matches!(fault, Fault::Full(_));
            state.nodes[node].note_change(now);
        }
        Fault::Terminate(node) => {
            if state.nodes[node].is_serving() {
                terminate(state, node);
                state.nodes[node].note_change(now);
            }
        }
        Fault::Cut(node) => {
            state.each_link(node, |pipe| pipe.reset());
            state.nodes[node].note_change(now);
        }
        Fault::Conflicts(node, times) => state.nodes[node].conflicts = times,
        Fault::Promote(node) => promote(state, node, now),
        Fault::Follow(node, upstream) => {
            let this = &mut state.nodes[node];
            if let Some(standby) =
                this.standby.as_mut().filter(|_| node != upstream && this.power == Power::Running)
                && standby.upstream != upstream
            {
                (standby.upstream, standby.receiver) = (upstream, None);
                state.receive_soon(node);
            }
        }
        Fault::Rebuild(node, upstream) => {
            let from = &state.nodes[upstream];
            let reverts = state.nodes[node].timeline > from.timeline;
            if node != upstream && from.is_serving() && !from.in_recovery() && (state.reverts || !reverts) {
                state.reverted |= reverts;
                rebuild(state, node, upstream, now);
            }
        }
    }
}

fn terminate(state: &mut Locked<'_>, node: usize) {
    for handle in state.sessions.values().filter(|handle| handle.node == node) {
        handle.terminated.cancel();
    }
}

/// Sends the rest of the log to the standbys, as a server that stops in order does.
fn drain(state: &mut Locked<'_>, node: usize) {
    state.nodes[node].flushed = state.nodes[node].wal.len();
    for standby in 0..state.nodes.len() {
        let streams =
            state.nodes[standby].standby.as_ref().is_some_and(|s| s.upstream == node && s.receiver.is_some());
        if streams && state.can_reach(standby, node) {
            let [this, from] = state.nodes.get_disjoint_mut([standby, node]).expect("two nodes");
            this.receive(from, 0, Instant::now());
            state.replay(standby, Instant::now());
        }
    }
}

fn stop(state: &mut Locked<'_>, node: usize, ended: Ended, now: Instant) {
    if state.nodes[node].power != Power::Down {
        state.nodes[node].stop(ended);
    }
    state.nodes[node].note_change(now);
}

fn start(state: &mut Locked<'_>, node: usize, now: Instant) {
    if state.nodes[node].power != Power::Down {
        return;
    }
    if std::mem::take(&mut state.nodes[node].lost) {
        // The machine knows nothing of the connections of before.
        state.each_link(node, |pipe| pipe.reset());
    }
    let pause = Duration::from_millis(state.rng.u64(50..800));
    state.recover_after(node, pause);
    state.nodes[node].note_change(now);
}

/// Lets replication go on after a node or its network is back.
fn resume(state: &mut Locked<'_>, node: usize, now: Instant) {
    state.nodes[node].note_change(now);
    state.receive_soon(node);
    state.feed(node);
}

fn promote(state: &mut Locked<'_>, node: usize, now: Instant) {
    let is_candidate = state.nodes[node].is_serving() && state.nodes[node].in_recovery();
    // With synchronous replication, the tool promotes a standby that has all that was acknowledged.
    let longest = state.nodes.iter().filter(|node| node.in_recovery()).map(|node| node.wal.len()).max();
    if !is_candidate || (state.synchronous && longest > Some(state.nodes[node].wal.len())) {
        return;
    }
    let number = state.number();
    let highest = state.nodes.iter().filter(|other| !other.in_recovery()).max_by_key(|other| other.timeline);
    let descends = highest.is_none_or(|highest| highest.wal.has_beginning_in(&state.nodes[node].wal));
    state.reverted |= !descends;
    state.nodes[node].promote(number);
    state.nodes[node].note_change(now);
    for (i, other) in state.nodes.iter_mut().enumerate() {
        // An old primary is of no use to the set any more.
        if i != node && !other.in_recovery() {
            other.sound_since = None;
        }
    }
    let pause = Duration::from_millis(state.rng.u64(20..3_000));
    state.checkpoint_after(node, pause);
    state.feed(node);
}

fn rebuild(state: &mut Locked<'_>, node: usize, upstream: usize, now: Instant) {
    stop(state, node, Ended::Cleanly, now);
    state.replaced(node);
    state.nodes[node].lost = false;
    state.each_link(node, |pipe| pipe.reset());
    let [this, from] = state.nodes.get_disjoint_mut([node, upstream]).expect("two nodes");
    let available = from.available();
    this.wal = from.wal.clone();
    this.wal.truncate(available);
    this.flushed = available;
    this.timeline = from.timeline;
    // A copy begins with a checkpoint of its source.
    this.control_timeline = from.timeline;
    from.control_timeline = from.timeline;
    this.standby =
        Some(Standby { upstream, receiver: None, receives: from.timeline, due: Default::default() });
    this.replay_paused = false;
    let pause = Duration::from_millis(state.rng.u64(200..1_500));
    state.recover_after(node, pause);
}

/// Ends all faults, and makes one node the primary of all others; returns it.
pub(crate) fn repair(cluster: &Cluster) -> usize {
    let mut state = cluster.lock();
    let now = Instant::now();
    for node in 0..state.nodes.len() {
        for fault in [
            Fault::Wake(node),
            Fault::Heal(node),
            Fault::Rejoin(node),
            Fault::Slow(node, 0),
            Fault::Lag(node, 0),
            Fault::ResumeReplay(node),
            Fault::NotFull(node),
            Fault::Conflicts(node, 0),
        ] {
            act(&mut state, fault, now);
        }
    }
    let primaries = (0..state.nodes.len()).filter(|node| !state.nodes[*node].in_recovery());
    let newest = primaries.max_by_key(|node| (state.nodes[*node].timeline, std::cmp::Reverse(*node)));
    let newest = newest.expect("no event makes the last primary a standby");
    act(&mut state, Fault::Start(newest), now);
    state.wake();
    newest
}

/// Lets all other nodes follow the primary, once it serves.
pub(crate) fn follow(cluster: &Cluster, primary: usize) {
    let mut state = cluster.lock();
    let now = Instant::now();
    for node in (0..state.nodes.len()).filter(|node| *node != primary) {
        let available = state.nodes[primary].available();
        let this = &state.nodes[node];
        let follows = this.standby.as_ref().is_some_and(|standby| standby.upstream == primary)
            && this.is_serving()
            && this.wal.is_prefix_of(&state.nodes[primary].wal, available);
        if follows {
            state.receive_soon(node);
        } else {
            act(&mut state, Fault::Rebuild(node, primary), now);
        }
    }
    state.wake();
}
