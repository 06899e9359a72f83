//! What the set remembers of its nodes from one judgement to the next.
//!
//! A node is remembered by the address that is configured for it, so it keeps its past through a change of the
//! configuration, and while it is out of sight.

use std::collections::BTreeMap;
use std::sync::Arc;

use std::time::Duration;

use tokio::time::Instant;

use super::Observation;
use super::lag::PrimaryPositions;
use super::lineage::Lineages;
use super::recoveries::{Recoveries, Recovery};
use crate::lsn::Lsn;
use crate::stats::ServerIdentity;

/// What is remembered from one judgement to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RoleHistory {
    /// The set's system identifier, once a primary has shown it.
    pub(super) system_identifier: Option<u64>,
    /// The identifier by which the pasts were recorded, which is open until it is adopted.
    recorded_by: Option<u64>,
    /// The highest timeline that counts: see [`settle_highest`](Self::settle_highest).
    pub(super) highest_timeline: u32,
    /// The highest timeline of nodes that left the configuration so long ago that they are remembered no more.
    floor: u32,
    pub(super) pasts: BTreeMap<Arc<str>, Past>,
    /// Which node was the primary last, to notice when another one is.
    pub(super) primary: Option<Arc<str>>,
    /// Where the primary was, and when.
    pub(super) history: PrimaryPositions,
    /// What tells the histories of the nodes apart, by their places.
    pub(super) lineages: Lineages,
    /// The nodes in their places.
    places: Vec<Arc<str>>,
    /// Histories that are gone from some of the nodes that showed them.
    gone: Vec<LostHistory>,
    /// How the nodes came to write. Shared: it changes once in a failover, and is read when a doubt is resolved.
    pub(crate) recoveries: Arc<Recoveries>,
}

/// What is remembered of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// The system identifier that it showed last.
    pub(super) system_identifier: Option<u64>,
    /// What it showed last, until the set has an identity by which it counts.
    pub(super) last: Option<Unrecorded>,
    /// The highest timeline that it showed, until it is proven to be gone from it.
    pub(super) highest: Option<Shown>,
    /// Where it wrote last, until it can write there no more: see [`Past::forget_writing`].
    pub(super) wrote: Option<Wrote>,
    /// The timeline that it showed as a standby, if its last answer was one.
    follows: Option<(u32, Option<ServerIdentity>)>,
    /// Its WAL receiver, and since when a primary on its timeline may feed that.
    receives_since: Option<(i32, Instant)>,
    /// The timeline to which it was promoted although it is not promotable.
    promoted_to: Option<u32>,
    configured: bool,
    /// The server to which its address led last.
    pub(super) server: Option<ServerIdentity>,
    /// Its address led to different servers.
    pub(super) floats: bool,
    /// It was an alias when it was last seen.
    pub(super) was_alias: bool,
}

/// An answer of a node whose set has no identity yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unrecorded {
    pub(super) observation: Observation,
    /// It could be promoted.
    pub(super) promotable: bool,
}

/// A timeline that a node showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) timeline: u32,
    /// Its last known position there.
    pub(super) position: Lsn,
    /// Up to where it had recovered when it began to write there: the fork of the timeline.
    pub(super) fork: Option<Lsn>,
    server: Option<ServerIdentity>,
    /// Only its WAL receiver or its position showed it, and not yet its control file.
    volatile: bool,
}

/// Where a node was seen out of recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wrote {
    pub(super) timeline: u32,
    /// Up to where it was seen to write.
    pub(super) position: Lsn,
    pub(super) server: Option<ServerIdentity>,
}

/// A history that is gone: every node that showed it was seen on a lower timeline since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LostHistory {
    pub(crate) timeline: u32,
    /// Where it parted from the timeline before, if that was seen.
    pub(crate) fork: Option<Lsn>,
    /// Up to where it was seen.
    pub(crate) position: Lsn,
}

/// One answer of a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'e> {
    pub(super) observation: &'e Observation,
    /// Its timeline is a conclusion from its position.
    pub(super) implied: bool,
    /// A primary on its timeline is seen, and is as far, so that it may have sent what the node has.
    pub(super) fed: bool,
    /// It may be promoted.
    pub(super) promotable: bool,
}

/// How long one WAL receiver must live to show what it receives: one that asks for a history that its sender does not have
/// ends within milliseconds.
const RECEIVES: Duration = Duration::from_secs(1);

/// Nodes that left the configuration and are remembered one by one.
const DEPARTED: usize = 64;

impl RoleHistory {
    /// Forgets everything: the operator says that what was seen before decides nothing any more.
    pub(crate) fn forget(&mut self, now: Instant) {
        *self = Self { recoveries: Arc::new(Recoveries::since(now)), ..Self::default() };
    }

    /// Notes which nodes are configured. One that is not proves nothing any more, and its writes do not count.
    pub(super) fn keep<'k>(&mut self, configured: impl Iterator<Item = &'k Arc<str>> + Clone) {
        if configured.clone().eq(&self.places) {
            return;
        }
        self.places = configured.clone().cloned().collect();
        self.lineages = self.lineages.carry_over();
        for past in self.pasts.values_mut() {
            past.configured = false;
        }
        for key in configured {
            self.pasts.entry(Arc::clone(key)).or_default().configured = true;
        }
        for past in self.pasts.values_mut().filter(|past| !past.configured) {
            past.wrote = None;
            past.follows = None;
        }
        self.pasts.retain(|_, past| past.configured || past.highest.is_some());
        if self.pasts.values().filter(|past| !past.configured).count() > DEPARTED {
            let departed = self.pasts.values().filter(|past| !past.configured);
            self.floor = departed.filter_map(Past::timeline).fold(self.floor, u32::max);
            self.pasts.retain(|_, past| past.configured);
        }
    }

    /// Goes by an identity. What was recorded by another one is forgotten, and what was seen before there was one counts.
    pub(super) fn go_by(&mut self, identifier: u64) {
        if self.recorded_by.replace(identifier) != Some(identifier) {
            (self.highest_timeline, self.floor, self.gone) = (0, 0, Vec::new());
            for past in self.pasts.values_mut() {
                *past = Past {
                    system_identifier: past.system_identifier,
                    last: past.last.take(),
                    configured: past.configured,
                    server: past.server,
                    floats: past.floats,
                    was_alias: past.was_alias,
                    ..Past::default()
                };
            }
        }
        if self.system_identifier.is_some() {
            return;
        }
        // A promotion that was not watched from the beginning is not witnessed, so no recovery is noted of it.
        for past in self.pasts.values_mut() {
            if let Some(Unrecorded { observation, promotable }) =
                past.last.clone().filter(|last| last.observation.system_identifier == Some(identifier))
            {
                let receives_since = past.receives_since;
                past.record(&Answer { observation: &observation, implied: false, fed: false, promotable });
                past.receives_since = receives_since;
            }
        }
    }

    /// A node is an alias of one that shows this timeline: what it showed counts for the node that is the server.
    pub(super) fn record_alias(&mut self, node: &Arc<str>, timeline: u32) {
        let known_elsewhere = |shown: &Shown| {
            let place = |server: ServerIdentity| (server.address, server.port);
            let of_same_server = |(other, past): (&Arc<str>, &Past)| {
                let theirs = past.highest.filter(|theirs| theirs.timeline >= shown.timeline);
                other != node
                    && theirs.and_then(|theirs| theirs.server).map(place) == shown.server.map(place)
                    && theirs.is_some()
            };
            shown.timeline <= timeline || self.pasts.iter().any(of_same_server)
        };
        let forgotten =
            self.pasts.get(node).and_then(|past| past.highest).is_some_and(|h| known_elsewhere(&h));
        let Some(past) = self.pasts.get_mut(node) else { return };
        past.forget_writing();
        past.last = None;
        past.system_identifier = None;
        past.was_alias = true;
        if forgotten {
            past.highest = None;
        }
    }

    /// Draws the highest timeline from the pasts. Returns the history that is gone, if it fell.
    pub(super) fn settle_highest(&mut self) -> Option<LostHistory> {
        let highest = self.pasts.values().filter_map(Past::timeline).fold(self.floor, u32::max);
        let before = std::mem::replace(&mut self.highest_timeline, highest);
        self.gone.retain(|gone| gone.timeline >= before);
        if highest >= before {
            return None;
        }
        self.lineages.forget_above(highest);
        let all = std::mem::take(&mut self.gone).into_iter().filter(|gone| gone.timeline == before);
        all.reduce(|one, other| LostHistory {
            fork: one.fork.or(other.fork),
            position: one.position.max(other.position),
            ..one
        })
    }

    /// Takes in what a node of the set shows.
    pub(super) fn record(&mut self, node: &Arc<str>, answer: &Answer<'_>) {
        let observation = answer.observation;
        self.pasts.entry(Arc::clone(node)).or_default().was_alias = false;
        let past = self.pasts.entry(Arc::clone(node)).or_default();
        if !observation.in_recovery {
            let recovery = past.recovery(node, observation);
            let same = |last: &Recovery| {
                !recovery.was_standby
                    && (last.timeline, last.end, last.server)
                        == (recovery.timeline, recovery.end, recovery.server)
            };
            if !self.recoveries.last_of(node).is_some_and(same) {
                Arc::make_mut(&mut self.recoveries).push(recovery);
            }
        }
        self.gone.extend(past.record(answer));
    }
}

impl Past {
    fn timeline(&self) -> Option<u32> {
        self.highest.map(|shown| shown.timeline)
    }

    /// It is gone for good as a primary: it is a standby, belongs to another cluster, or left the configuration.
    pub(super) fn forget_writing(&mut self) {
        self.wrote = None;
        self.follows = None;
    }

    fn recovery(&self, node: &Arc<str>, observation: &Observation) -> Recovery {
        let same_process = |before: Option<ServerIdentity>| {
            before.zip(observation.server).is_some_and(|(before, now)| before.is_same_server(&now))
        };
        let from = self.follows.filter(|(_, server)| same_process(*server)).map(|(timeline, _)| timeline);
        Recovery {
            node: Arc::clone(node),
            server: observation.server,
            timeline: observation.timeline,
            end: observation.recovered_to,
            from,
            was_standby: self.follows.is_some(),
            at: observation.at,
        }
    }

    fn note_receiver(&mut self, answer: &Answer<'_>) {
        let receiver = answer.observation.receiver_pid.filter(|_| answer.fed);
        let since = self.receives_since.filter(|(pid, _)| Some(*pid) == receiver);
        self.receives_since = since.or_else(|| Some((receiver?, answer.observation.at)));
    }

    /// Takes in what the node shows. Returns the history that is gone from it, if one is.
    fn record(&mut self, answer: &Answer<'_>) -> Option<LostHistory> {
        let &Answer { observation, promotable, .. } = answer;
        if observation.in_recovery {
            self.wrote = None;
            self.follows = Some((observation.timeline, observation.server));
        } else {
            self.follows = None;
            if !promotable {
                self.promoted_to = Some(observation.timeline);
            } else {
                self.wrote = Some(Wrote {
                    timeline: observation.timeline,
                    position: observation.position,
                    server: observation.server,
                });
            }
        }
        // What it wrote by itself is no history of the set, whether it still writes or only replays it again.
        if self.promoted_to == Some(observation.timeline) && !promotable {
            return None;
        }
        let now = Shown {
            timeline: observation.timeline,
            position: observation.position,
            fork: if observation.in_recovery { None } else { observation.recovered_to },
            server: observation.server,
            volatile: answer.implied
                || observation.in_recovery && observation.received_timeline == Some(observation.timeline),
        };
        let before = self.highest.filter(|before| now.timeline < before.timeline);
        self.note_receiver(answer);
        if before.is_some_and(|before| !before.is_gone(observation, self.receives_since)) {
            return None;
        }
        // A restart forgets the fork, and what the control file showed stays shown.
        let same = self.highest.filter(|before| now.timeline == before.timeline);
        let fork = same.and_then(|before| before.fork).or(now.fork);
        let volatile = now.volatile && same.is_none_or(|before| before.volatile);
        self.highest = Some(Shown { fork, volatile, ..now });
        before.map(|before| LostHistory {
            timeline: before.timeline,
            fork: before.fork,
            position: before.position,
        })
    }
}

impl Shown {
    /// Returns `true` if a lower timeline proves that the node has this history no more.
    ///
    /// The control file of one data directory never shows a lower timeline than before, so the directory was replaced
    /// (rebuilt, rewound, restored), for which the server was restarted. Another address is another server's: a floating one
    /// moved. What the control file did not show may just be out of sight, so the node must receive from another history.
    fn is_gone(&self, observation: &Observation, receives: Option<(i32, Instant)>) -> bool {
        let another_process = self.server.zip(observation.server).is_some_and(|(before, now)| {
            let moved = before.port != now.port
                || before.address.zip(now.address).is_some_and(|(before, now)| before != now);
            !moved && before.started_at_micros != now.started_at_micros
        });
        let receives = || match observation.received_timeline {
            Some(timeline) => timeline == observation.timeline,
            None => receives.is_some_and(|(_, since)| observation.at.duration_since(since) >= RECEIVES),
        };
        another_process
            && observation.timeline > 0
            && (!observation.in_recovery || !self.volatile || receives())
    }
}
