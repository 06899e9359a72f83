//! A schedule: the faults and operations of one run, with their times, drawn from a seed.
//!
//! It is drawn as a whole before the run. So events can be left out, and the rest stays the same, which a search for
//! the shortest schedule that still fails needs.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use crate::faults::Fault;
use crate::operations::Operation;

/// The faults and operations of one run.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    /// `true` if a COMMIT waits for one standby.
    pub(crate) synchronous: bool,
    /// `true` if the role may see the timeline that a standby receives.
    pub(crate) privileged: bool,
    /// `true` if an operator may end a later timeline in favour of an earlier one.
    pub(crate) reverts: bool,
    pub(crate) events: Vec<(Duration, Event)>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    Fault(Fault),
    Operation(Operation),
}

/// The last fault of a schedule begins before this.
const LAST_FAULT: u64 = 40_000;

/// The last operation of a schedule begins before this.
const LAST_OPERATION: u64 = 50_000;

/// The end of all faults, at which the cluster is repaired.
pub(crate) const REPAIR: Duration = Duration::from_secs(48);

/// Number of operations in a schedule.
const OPERATIONS: u64 = 250;

/// Number of accounts, so that the rows of one stay few.
const ACCOUNTS: i32 = 40;

/// Number of sessions with a causal token.
pub(crate) const SESSIONS: usize = 2;

impl Schedule {
    /// Draws a schedule.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let nodes = rng.usize(2..=4);
        let mut draft = Draft { leader: 0, nodes, events: Vec::new(), rng };
        let mut at = draft.rng.u64(1_000..6_000);
        while at < LAST_FAULT {
            draft.incident(at);
            at += draft.rng.u64(1_500..9_000);
        }
        draft.operations();
        let Draft { mut events, mut rng, .. } = draft;
        events.retain(|(at, _)| *at < REPAIR);
        events.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            nodes,
            synchronous: rng.u8(..4) == 0,
            privileged: rng.u8(..3) == 0,
            reverts: rng.u8(..4) == 0,
            events,
        }
    }
}

struct Draft {
    rng: Rng,
    nodes: usize,
    /// The node that should be the primary.
    leader: usize,
    events: Vec<(Duration, Event)>,
}

impl Draft {
    fn fault(&mut self, at: u64, fault: Fault) {
        self.events.push((Duration::from_millis(at), Event::Fault(fault)));
    }

    fn other_than(&mut self, node: usize) -> usize {
        (node + self.rng.usize(1..self.nodes)) % self.nodes
    }

    fn incident(&mut self, at: u64) {
        let node = self.rng.usize(..self.nodes);
        let (length, drawn) = (self.rng.u64(50..6_000), self.rng.u32(..4_000));
        match self.rng.u32(..20) {
            0..9 => self.failover(at),
            9 | 10 => self.trouble(at, node, length),
            11 => self.with_end(at, length, Fault::Slow(node, drawn % 130 + 20), Fault::Slow(node, 0)),
            12 => self.with_end(at, length, Fault::Lag(node, drawn + 100), Fault::Lag(node, 0)),
            13 => self.with_end(at, length, Fault::PauseReplay(node), Fault::ResumeReplay(node)),
            14 => self.with_end(at, length, Fault::Full(node), Fault::NotFull(node)),
            15 => self.fault(at, Fault::Terminate(node)),
            16 => self.fault(at, Fault::Cut(node)),
            17 => self.fault(at, Fault::Conflicts(self.leader, drawn % 3 + 1)),
            18 => self.with_end(at, length, Fault::Isolate(node), Fault::Rejoin(node)),
            _ => {
                self.fault(at, Fault::Kill(node));
                self.fault(at + 1, Fault::Start(node));
            }
        }
    }

    fn with_end(&mut self, at: u64, length: u64, begin: Fault, end: Fault) {
        self.fault(at, begin);
        self.fault(at + length, end);
    }

    /// Takes a node away for a while.
    fn trouble(&mut self, at: u64, node: usize, length: u64) {
        match self.rng.u32(..6) {
            0 => self.with_end(at, length, Fault::Kill(node), Fault::Start(node)),
            1 => self.with_end(at, length, Fault::Lose(node), Fault::Start(node)),
            2 => self.with_end(at, length, Fault::Stop(node), Fault::Start(node)),
            3 => self.with_end(at, length, Fault::Hang(node), Fault::Wake(node)),
            4 => self.with_end(at, length, Fault::Partition(node), Fault::Heal(node)),
            _ => {
                self.with_end(at, length, Fault::Partition(node), Fault::Heal(node));
                self.with_end(at, length, Fault::Isolate(node), Fault::Rejoin(node));
            }
        }
    }

    /// Promotes a standby, usually because the primary is in trouble.
    fn failover(&mut self, at: u64) {
        let (old, new) = (self.leader, self.other_than(self.leader));
        let length = self.rng.u64(500..12_000);
        if self.rng.u8(..10) > 0 {
            self.trouble(at, old, length);
        }
        let promoted = at + self.rng.u64(0..2_500);
        self.fault(promoted, Fault::Promote(new));
        for node in (0..self.nodes).filter(|node| *node != old && *node != new) {
            match self.rng.u8(..10) {
                // Both are promoted.
                0 => {
                    let too = promoted + self.rng.u64(0..3_000);
                    self.fault(too, Fault::Promote(node));
                }
                1 | 2 => {}
                _ => {
                    let follows = promoted + self.rng.u64(0..2_000);
                    self.fault(follows, Fault::Follow(node, new));
                }
            }
        }
        if self.rng.u8(..4) > 0 {
            let rebuilt = at.max(promoted) + length + self.rng.u64(0..4_000);
            self.fault(rebuilt, Fault::Rebuild(old, new));
        }
        self.leader = new;
    }

    fn operations(&mut self) {
        let millis = |(at, _): &(Duration, Event)| u64::try_from(at.as_millis()).unwrap_or(0);
        let faults: Vec<u64> = self.events.iter().map(millis).collect();
        for number in 0..OPERATIONS {
            // Half of them begin soon after a fault, when most can go wrong.
            let fault = if self.rng.bool() { faults.get(self.rng.usize(..=faults.len())) } else { None };
            let at = match fault {
                Some(fault) => (fault + self.rng.u64(..1_500)).clamp(200, LAST_OPERATION),
                None => self.rng.u64(200..LAST_OPERATION),
            };
            let (id, account) = (number.cast_signed(), self.rng.i32(0..ACCOUNTS));
            let session = self.rng.usize(..SESSIONS);
            let operation = match self.rng.u32(..20) {
                0..8 => Operation::Read { account },
                8 => Operation::SessionRead { session },
                9..11 => Operation::SessionWrite { session, id },
                11 | 12 => Operation::Write { id, account },
                13 | 14 => Operation::Resolvable { id, account },
                15 => Operation::Once { id, account },
                16 => Operation::Bare { id, account },
                17 => Operation::AbandonedWrite { id, account, after: self.rng.u32(..30) },
                _ => Operation::AbandonedRead { account, after: self.rng.u32(..10) },
            };
            self.events.push((Duration::from_millis(at), Event::Operation(operation)));
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, nodes, synchronous, privileged, reverts, events } = self;
        writeln!(
            f,
            "seed {seed}: {nodes} nodes, synchronous: {synchronous}, privileged: {privileged}, reverts: {reverts}"
        )?;
        for (at, event) in events {
            match event {
                Event::Fault(fault) => writeln!(f, "    {at:?}: {fault:?}")?,
                Event::Operation(operation) => writeln!(f, "    {at:?}: {operation:?}")?,
            }
        }
        Ok(())
    }
}
