//! The set's view of the servers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::servers::{SERVERS, Server};
use crate::lsn::Lsn;
use crate::stats::ServerIdentity;
use crate::topology::{Recoveries, Recovery};

/// The servers as the set has seen them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct View {
    pub(super) shown: [Option<Shown>; SERVERS],
    highest: u32,
    pub(super) recoveries: Vec<Seen>,
}

/// The last answer of a server to a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Shown {
    pub(super) is_primary: bool,
    timeline: u32,
    pub(super) process: u8,
    recovered_to: Option<u64>,
}

/// A recovery as the set records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    server: usize,
    process: u8,
    timeline: u32,
    end: Option<u64>,
    from: Option<u32>,
    was_standby: bool,
}

impl View {
    pub(super) fn probe(&mut self, i: usize, server: &Server) {
        let before = self.shown[i];
        let shown = Shown::of(server);
        if server.is_primary {
            let follows = before.filter(|before| !before.is_primary);
            let seen = Seen {
                server: i,
                process: server.process,
                timeline: server.timeline,
                end: server.recovered_to,
                from: follows.filter(|before| before.process == server.process).map(|before| before.timeline),
                was_standby: follows.is_some(),
            };
            let last = self.recoveries.iter().rfind(|seen| seen.server == i);
            let same = |last: &Seen| {
                !seen.was_standby
                    && (last.timeline, last.end, last.process) == (seen.timeline, seen.end, seen.process)
            };
            if !last.is_some_and(same) {
                self.recoveries.push(seen);
            }
        }
        self.shown[i] = Some(shown);
        self.highest = self.highest.max(server.timeline);
    }

    /// Returns the server that the set writes to.
    pub(super) fn primary(&self) -> Option<usize> {
        let claims = |shown: &Option<Shown>| {
            shown.is_some_and(|shown| shown.is_primary && shown.timeline == self.highest)
        };
        let mut all = (0..SERVERS).filter(|i| claims(&self.shown[*i]));
        all.next().filter(|_| all.next().is_none())
    }

    pub(super) fn recoveries(&self, base: Instant) -> Recoveries {
        let mut recoveries = Recoveries::default();
        for (i, seen) in self.recoveries.iter().enumerate() {
            let at = base + Duration::from_secs(2 * i as u64 + 1);
            recoveries.push(Recovery {
                node: name(seen.server),
                server: Some(ServerIdentity {
                    started_at_micros: seen.process.into(),
                    port: 5432,
                    address: None,
                }),
                timeline: seen.timeline,
                end: seen.end.map(Lsn::new),
                from: seen.from,
                was_standby: seen.was_standby,
                at,
            });
        }
        recoveries
    }
}

impl Shown {
    pub(super) fn of(server: &Server) -> Self {
        let &Server { is_primary, timeline, process, recovered_to, .. } = server;
        Self { is_primary, timeline, process, recovered_to }
    }
}

pub(super) fn name(server: usize) -> Arc<str> {
    Arc::from(["a", "b", "c"][server])
}
