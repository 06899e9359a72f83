//! One simulated server: its data directory, its role and its replication (pure).

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::wal::{Body, Database, Wal, segment_start};

/// The state of a server's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    Running,
    /// It rejects logins with 57P03.
    Starting,
    Down,
}

/// The end of a server's processes, which decides what its next start recovers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Cleanly,
    Crashed,
}

/// A server in recovery.
#[derive(Debug, Clone)]
pub(crate) struct Standby {
    pub(crate) upstream: usize,
    /// The process that receives, while it streams.
    pub(crate) receiver: Option<i32>,
    /// The timeline that it receives.
    pub(crate) receives: u32,
    /// Positions with the time at which they are replayed.
    pub(crate) due: VecDeque<(Instant, usize)>,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) power: Power,
    pub(crate) ended: Ended,
    pub(crate) hung: bool,
    /// Cancelled when the processes end.
    pub(crate) life: CancellationToken,
    /// Number of the present start.
    pub(crate) run: u64,
    pub(crate) started_at: i64,
    pub(crate) wal: Wal,
    /// Records that survive a crash.
    pub(crate) flushed: usize,
    pub(crate) replayed: usize,
    pub(crate) database: Database,
    /// `None` out of recovery.
    pub(crate) standby: Option<Standby>,
    /// The highest timeline that the data directory knows.
    pub(crate) timeline: u32,
    /// The timeline in the control file.
    pub(crate) control_timeline: u32,
    pub(crate) recovered_to: Option<u64>,
    /// The log received since the start.
    pub(crate) received: Option<u64>,
    pub(crate) replay_delay: Duration,
    pub(crate) replay_paused: bool,
    /// `true` if no byte passes between it and the set.
    pub(crate) partitioned: bool,
    /// `true` if no byte passes between it and other servers.
    pub(crate) isolated: bool,
    /// `true` if its machine is gone, so that nothing answers.
    pub(crate) lost: bool,
    /// `true` if it has no connection slot left.
    pub(crate) full: bool,
    pub(crate) slowness: Duration,
    /// Number of the next COMMITs that fail with 40001.
    pub(crate) conflicts: u32,
    /// Since when nothing has been wrong with it; `None` while something is.
    pub(crate) sound_since: Option<Instant>,
}

impl Node {
    pub(crate) fn new(standby: Option<Standby>, now: Instant) -> Self {
        Self {
            power: Power::Running,
            ended: Ended::Cleanly,
            hung: false,
            life: CancellationToken::new(),
            run: 0,
            started_at: 0,
            wal: Wal::default(),
            flushed: 0,
            replayed: 0,
            database: Database::default(),
            standby,
            timeline: 1,
            control_timeline: 1,
            recovered_to: None,
            received: None,
            replay_delay: Duration::ZERO,
            replay_paused: false,
            partitioned: false,
            isolated: false,
            lost: false,
            full: false,
            slowness: Duration::ZERO,
            conflicts: 0,
            sound_since: Some(now),
        }
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.power == Power::Running && !self.hung
    }

    pub(crate) fn in_recovery(&self) -> bool {
        self.standby.is_some()
    }

    /// Returns the number of records that another server may receive.
    pub(crate) fn available(&self) -> usize {
        if self.in_recovery() { self.wal.len() } else { self.flushed }
    }

    /// Returns `true` if something is wrong that the set may notice.
    fn is_troubled(&self) -> bool {
        !self.is_serving()
            || self.partitioned
            || self.lost
            || self.full
            || !self.slowness.is_zero()
            || self.replay_paused
            || self.isolated
    }

    /// Records a change of the node: it counts as sound from now on, if nothing is wrong.
    pub(crate) fn note_change(&mut self, now: Instant) {
        self.sound_since = (!self.is_troubled()).then_some(now);
    }

    /// Appends a record; returns the number of records then.
    pub(crate) fn append(&mut self, number: u64, body: Body) -> usize {
        self.wal.push(number, self.timeline, body);
        self.wal.len()
    }

    /// Ends the processes; what was not flushed is lost.
    pub(crate) fn stop(&mut self, ended: Ended) {
        if self.standby.is_none() {
            self.wal.truncate(self.flushed);
        }
        if let Some(standby) = &mut self.standby {
            standby.receiver = None;
            standby.due.clear();
        }
        (self.power, self.hung, self.ended, self.conflicts) = (Power::Down, false, ended, 0);
        self.run += 1;
        self.life.cancel();
    }

    /// Begins to serve after a start: recovers from the log.
    pub(crate) fn recover(&mut self, number: u64, started_at: i64) {
        self.power = Power::Running;
        self.life = CancellationToken::new();
        self.started_at = started_at;
        self.replayed = self.wal.len();
        self.database = Database::replay(self.wal.records(0, self.replayed));
        self.received = None;
        self.recovered_to = None;
        if self.standby.is_none() {
            self.database.end_recovery();
            if self.ended == Ended::Crashed {
                self.recovered_to = Some(self.wal.lsn(self.wal.len()));
                self.control_timeline = self.timeline;
                self.append(number, Body::Other);
            }
            self.flushed = self.wal.len();
        }
    }

    /// Ends the recovery and begins a timeline.
    pub(crate) fn promote(&mut self, number: u64) {
        self.replay(self.wal.len());
        self.standby = None;
        self.replay_paused = false;
        self.database.end_recovery();
        self.timeline += 1;
        self.recovered_to = Some(self.wal.lsn(self.wal.len()));
        self.append(number, Body::Other);
        self.flushed = self.wal.len();
    }

    /// Replays up to a number of records.
    pub(crate) fn replay(&mut self, to: usize) {
        if to > self.replayed {
            for record in self.wal.records(self.replayed, to) {
                self.database.apply(record.body);
            }
            self.replayed = to;
        }
    }

    /// Receives what another server has; returns `false` if the histories have parted.
    pub(crate) fn receive(&mut self, from: &Self, pid: i32, now: Instant) -> bool {
        let available = from.available();
        let own_end = self.wal.lsn(self.wal.len());
        let Some(standby) = &mut self.standby else { return false };
        if standby.receiver.is_none() || standby.receives != from.timeline {
            // It asks from the start of a WAL file on.
            self.received = Some(segment_start(own_end));
        }
        if !self.wal.is_prefix_of(&from.wal, available) {
            standby.receiver = None;
            return false;
        }
        let receiver = standby.receiver.filter(|_| standby.receives == from.timeline);
        standby.receiver = Some(receiver.unwrap_or(pid));
        standby.receives = from.timeline;
        self.timeline = self.timeline.max(from.timeline);
        if available > self.wal.len() {
            self.wal.receive(&from.wal, available);
            standby.due.push_back((now + self.replay_delay, available));
        }
        self.received = Some(self.wal.lsn(self.wal.len()));
        true
    }

    /// Replays what is due; returns when the next part is.
    pub(crate) fn replay_due(&mut self, now: Instant) -> Option<Instant> {
        loop {
            let standby = self.standby.as_mut().filter(|_| !self.replay_paused)?;
            let (due, to) = *standby.due.front()?;
            if due > now {
                return Some(due);
            }
            standby.due.pop_front();
            self.replay(to);
        }
    }
}
