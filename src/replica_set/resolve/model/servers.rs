//! The servers, their logs, and what can happen to them.

use super::Bounds;

/// The servers: the first one is the primary at the beginning.
pub(super) const SERVERS: usize = 3;

/// A record of the log; its position is its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Record {
    /// The first record of a run of the client's transaction, which takes an id.
    First(u8),
    /// The commit of that run.
    Commit(u8),
    /// A transaction of another client, which takes an id and is committed.
    Other,
    /// The end of a recovery, so that two histories of one number differ; by server.
    Recovered(u8),
}

impl Record {
    fn takes_id(self) -> bool {
        matches!(self, Self::First(_) | Self::Other)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Health {
    Up,
    Down,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Server {
    pub(super) log: Vec<Record>,
    /// Records that a crash does not lose.
    flushed: usize,
    pub(super) health: Health,
    pub(super) is_primary: bool,
    pub(super) timeline: u32,
    /// End of the last recovery.
    pub(super) recovered_to: Option<u64>,
    /// Number of the process.
    pub(super) process: u8,
}

/// Something that happens to the servers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    Flush(usize),
    /// The second one receives the next record of the first one.
    Receive(usize, usize),
    OtherCommits(usize),
    Crashes(usize),
    Restarts(usize),
    RestartsCleanly(usize),
    Promoted(usize),
    /// The second one becomes a standby of the first one.
    Rebuilt(usize, usize),
}

impl Event {
    pub(super) fn is_fault(self) -> bool {
        !matches!(self, Self::Flush(_) | Self::Receive(..) | Self::OtherCommits(_))
    }

    /// Returns `true` if a server begins to write, or to follow.
    pub(super) fn recovers(self) -> bool {
        matches!(self, Self::Restarts(_) | Self::RestartsCleanly(_) | Self::Promoted(_) | Self::Rebuilt(..))
    }
}

/// Three servers before any of them writes.
pub(super) fn standbys() -> [Server; SERVERS] {
    std::array::from_fn(|_| Server {
        log: Vec::new(),
        flushed: 0,
        health: Health::Up,
        is_primary: false,
        timeline: 1,
        recovered_to: None,
        process: 0,
    })
}

impl Server {
    pub(super) fn writes(&self) -> bool {
        self.health == Health::Up && self.is_primary
    }

    /// Returns the id that the next transaction gets.
    pub(super) fn next_id(&self) -> u64 {
        self.log.iter().filter(|record| record.takes_id()).count() as u64
    }

    /// Returns the record that took an id.
    pub(super) fn taker(&self, id: u64) -> Option<Record> {
        self.log.iter().copied().filter(|record| record.takes_id()).nth(usize::try_from(id).expect("small"))
    }

    pub(super) fn has(&self, record: Record) -> bool {
        self.log.contains(&record)
    }

    pub(super) fn has_durably(&self, record: Record) -> bool {
        self.log[..self.flushed].contains(&record)
    }

    fn crash(&mut self) {
        self.log.truncate(self.flushed);
        self.health = Health::Down;
    }

    fn start(&mut self, server: usize, is_crashed: bool) {
        self.health = Health::Up;
        self.process += 1;
        if self.is_primary {
            self.recovered_to = is_crashed.then_some(self.log.len() as u64);
            self.mark(server);
        }
    }

    fn mark(&mut self, server: usize) {
        self.log.push(Record::Recovered(u8::try_from(server).expect("small")));
        self.flushed = self.log.len();
    }
}

/// Returns all events that can come next.
pub(super) fn events(servers: &[Server; SERVERS], others: u8, faults: u8) -> Vec<Event> {
    let mut events = Vec::new();
    for (i, server) in servers.iter().enumerate() {
        let is_up = server.health == Health::Up;
        if is_up && server.flushed < server.log.len() {
            events.push(Event::Flush(i));
        }
        if server.writes() && others > 0 {
            events.push(Event::OtherCommits(i));
        }
        for (j, standby) in servers.iter().enumerate() {
            let streams = is_up && i != j && standby.health == Health::Up && !standby.is_primary;
            let follows = server.timeline >= standby.timeline && server.log.starts_with(&standby.log);
            if streams
                && follows
                && (standby.log.len() < server.flushed || server.timeline > standby.timeline)
            {
                events.push(Event::Receive(i, j));
            }
            // A rebuild from an older timeline makes what the client was told of the newer one untrue.
            let is_newer = server.timeline >= standby.timeline;
            if faults > 0 && server.writes() && i != j && standby.is_primary && is_newer {
                events.push(Event::Rebuilt(i, j));
            }
        }
        if faults == 0 {
            continue;
        }
        match server.health {
            Health::Up if server.is_primary => events.push(Event::Crashes(i)),
            Health::Down => events.push(Event::Restarts(i)),
            Health::Up => {}
        }
        if server.writes() {
            events.push(Event::RestartsCleanly(i));
        }
        if is_up && !server.is_primary {
            events.push(Event::Promoted(i));
        }
    }
    events
}

/// Lets an event happen.
pub(super) fn happen(servers: &mut [Server; SERVERS], event: Event) {
    match event {
        Event::Flush(i) => servers[i].flushed = servers[i].log.len(),
        Event::Receive(i, j) => {
            let next = servers[i].log.get(servers[j].log.len()).copied();
            let (timeline, is_flushed) = (servers[i].timeline, servers[j].log.len() < servers[i].flushed);
            servers[j].log.extend(next.filter(|_| is_flushed));
            servers[j].flushed = servers[j].log.len();
            servers[j].timeline = timeline;
        }
        Event::OtherCommits(i) => {
            servers[i].log.push(Record::Other);
            servers[i].flushed = servers[i].log.len();
        }
        Event::Crashes(i) => servers[i].crash(),
        Event::Restarts(i) => servers[i].start(i, true),
        Event::RestartsCleanly(i) => {
            servers[i].flushed = servers[i].log.len();
            servers[i].start(i, false);
        }
        Event::Promoted(i) => {
            let server = &mut servers[i];
            server.is_primary = true;
            server.timeline += 1;
            server.recovered_to = Some(server.log.len() as u64);
            server.mark(i);
        }
        Event::Rebuilt(i, j) => {
            let copy = servers[i].log[..servers[i].flushed].to_vec();
            let (timeline, server) = (servers[i].timeline, &mut servers[j]);
            *server = Server {
                flushed: copy.len(),
                log: copy,
                health: Health::Up,
                is_primary: false,
                timeline,
                recovered_to: None,
                process: server.process + 1,
            };
        }
    }
}

/// Returns `true` if a commit on a server need not wait for a standby any more.
pub(super) fn is_replicated(servers: &[Server; SERVERS], on: usize, record: Record, bounds: &Bounds) -> bool {
    let has = |(i, server): (usize, &Server)| i != on && server.has_durably(record);
    !bounds.synchronous || servers.iter().enumerate().any(has)
}
