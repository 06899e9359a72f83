//! Memory of the nodes, from one resolution of their roles to the next.
//!
//! The key is the configured address. So a node keeps its past through a change of the configuration, and while it
//! is out of sight.

use std::collections::BTreeMap;
use std::sync::Arc;

use std::time::Duration;

use tokio::time::Instant;

use super::lag::PrimaryPositions;
use super::lineage::Lineages;
use super::recoveries::{Recoveries, Recovery};
use super::replacement::Candidate;
use super::{LastSeen, Observation, Seen};
use crate::lsn::Lsn;
use crate::stats::ServerIdentity;

/// State kept from one resolution of the roles to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RoleHistory {
    /// The set's system identifier, once a primary has shown it.
    pub(super) system_identifier: Option<u64>,
    /// The identifier of the recorded pasts; open until the set adopts it.
    pub(super) recorded_by: Option<u64>,
    /// The identifier that an earlier run of the program recorded; see `memory`.
    ///
    /// It counts until the nodes contradict it or a primary has shown it.
    pub(super) recalled: Option<u64>,
    /// Number of times that a timeline or a whole cluster was forgotten.
    pub(super) forgettings: u64,
    /// The highest timeline that counts.
    ///
    /// See [`settle_highest`](Self::settle_highest).
    pub(super) highest_timeline: u32,
    /// The highest timeline of removed nodes whose pasts are already forgotten.
    pub(super) floor: u32,
    pub(super) pasts: BTreeMap<Arc<str>, Past>,
    /// The last primary, to notice when another node takes over.
    pub(super) primary: Option<Arc<str>>,
    /// Positions of the primary, with their instants.
    pub(super) positions: PrimaryPositions,
    /// Data that distinguishes the nodes' histories, by place.
    pub(super) lineages: Lineages,
    /// The nodes, each at its place.
    places: Vec<Arc<str>>,
    /// The cluster that may have replaced the set's own.
    pub(super) candidate: Option<Candidate>,
    /// `true` if a node that is no longer configured shows the set's identifier.
    pub(super) is_elsewhere: bool,
    /// Histories that were lost on some of the nodes that showed them.
    lost: Vec<LostHistory>,
    /// The recoveries by which the nodes came to write.
    ///
    /// Shared: the list changes once in a failover, and resolving an in-doubt transaction reads it.
    pub(crate) recoveries: Arc<Recoveries>,
}

/// The past of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// The last system identifier that the node showed.
    pub(super) system_identifier: Option<u64>,
    /// The last observation, until the set has an identity by which it counts.
    pub(super) last: Option<Unrecorded>,
    /// The highest timeline that the node showed, until it is proven lost.
    pub(super) highest: Option<Shown>,
    /// The node's last position as a writer, until it can write there no more.
    ///
    /// See [`Past::forget_writing`].
    pub(super) wrote: Option<Wrote>,
    /// The timeline that the node showed, if its last answer was a standby's.
    follows: Option<(u32, Option<ServerIdentity>)>,
    /// The primary that the node has overtaken, so that its timeline is inferred.
    overtook: Option<Arc<str>>,
    /// The WAL receiver, and since when a primary on its timeline may feed it.
    receives_since: Option<(i32, Instant)>,
    /// The timeline to which the node was promoted although it is not promotable.
    promoted_to: Option<u32>,
    pub(super) configured: bool,
    /// The server that the address reached last.
    pub(super) server: Option<ServerIdentity>,
    /// `true` if the address has led to different servers.
    pub(super) floats: bool,
    /// `true` if the node was an alias in its last observation.
    pub(super) was_alias: bool,
}

/// An answer of a node whose set has no identity yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unrecorded {
    pub(super) observation: Observation,
    /// `true` if the node could be promoted.
    pub(super) promotable: bool,
}

/// A timeline that a node showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) timeline: u32,
    /// The node's last position on this timeline; zero if it is only remembered.
    pub(super) position: Lsn,
    /// The fork of the timeline, from which the node began to write.
    pub(super) fork: Option<Lsn>,
    pub(super) server: Option<ServerIdentity>,
    /// `true` if the control file does not show the timeline yet.
    ///
    /// Then only the WAL receiver or the position showed it.
    pub(super) volatile: bool,
}

/// A position at which a node was seen out of recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wrote {
    pub(super) timeline: u32,
    /// The last position that the node was seen to write.
    pub(super) position: Lsn,
    pub(super) server: Option<ServerIdentity>,
}

/// A lost history: every node that showed it has since shown a lower timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LostHistory {
    pub(crate) timeline: u32,
    /// The fork from the timeline before, if a probe saw it.
    pub(crate) fork: Option<Lsn>,
    /// The last position seen.
    pub(crate) position: Lsn,
}

/// One answer of a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'e> {
    pub(super) observation: &'e Observation,
    /// `true` if the timeline is inferred from the position.
    pub(super) implied: bool,
    /// `true` if a primary on the timeline may have sent the node's data.
    ///
    /// The primary is seen, and is at least as far.
    pub(super) fed: bool,
    /// `true` if the node may be promoted.
    pub(super) promotable: bool,
}

/// Lifetime after which a WAL receiver counts as receiving.
///
/// A receiver that asks for a history its sender lacks ends within milliseconds.
const RECEIVES: Duration = Duration::from_secs(1);

/// Removed nodes whose pasts are kept.
///
/// If there are more, the set keeps only their highest timeline.
const DEPARTED: usize = 64;

impl RoleHistory {
    /// Forgets everything, because the operator discards earlier observations.
    pub(crate) fn forget(&mut self, now: Instant) {
        let forgettings = self.forgettings + 1;
        *self = Self { recoveries: Arc::new(Recoveries::since(now)), forgettings, ..Self::default() };
    }

    /// Keeps the configured nodes.
    ///
    /// A removed node proves nothing any more, and its writes do not count.
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

    /// Adopts an identity.
    ///
    /// The pasts recorded under another identity are forgotten. Observations from before the first identity count.
    pub(super) fn go_by(&mut self, identifier: u64) {
        if self.recorded_by.replace(identifier) != Some(identifier) {
            (self.highest_timeline, self.floor, self.lost) = (0, 0, Vec::new());
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
        // A promotion not watched from the beginning is not witnessed, so no recovery is recorded for it.
        for past in self.pasts.values_mut() {
            if let Some(Unrecorded { observation, promotable }) =
                past.last.clone().filter(|last| last.observation.system_identifier == Some(identifier))
            {
                let receives_since = past.receives_since;
                let answer = Answer { observation: &observation, implied: false, fed: false, promotable };
                self.lost.extend(past.record(&answer));
                past.receives_since = receives_since;
            }
        }
    }

    /// Credits an alias's timeline to the node that represents the server.
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

    /// Returns the timeline on which a node writes, or was last seen to.
    pub(super) fn claim(&self, seen: &Seen<'_>) -> Option<u32> {
        match seen.last_seen.observation() {
            Some(now) => Some(now.timeline).filter(|_| seen.promotable && !now.in_recovery),
            None => self.pasts.get(&seen.node)?.wrote.map(|wrote| wrote.timeline),
        }
    }

    /// Records which primaries the standbys have overtaken.
    ///
    /// If a rival of such a primary comes in sight, on the same timeline and as far, it may have sent the data. Then
    /// the standby proves no later timeline any more.
    pub(super) fn note_overtaken(
        &mut self,
        nodes: &[Seen<'_>],
        overtaken: &[Option<(u32, usize)>],
        claims: &[Option<u32>],
    ) {
        for (place, seen) in nodes.iter().enumerate() {
            let Some(past) = self.pasts.get_mut(&seen.node) else { continue };
            let Some(now) = seen.last_seen.observation() else { continue };
            if let Some((_, primary)) = overtaken[place] {
                past.overtook = Some(Arc::clone(&nodes[primary].node));
                continue;
            }
            let Some((highest, overtook)) = past.highest.zip(past.overtook.as_ref()) else { continue };
            if now.timeline >= highest.timeline {
                past.overtook = None;
                continue;
            }
            let all_last_seen: Vec<LastSeen> = nodes.iter().map(|seen| seen.last_seen.clone()).collect();
            let is_rival = |(other, rival): (usize, &Seen<'_>)| {
                rival.node != *overtook
                    && rival
                        .last_seen
                        .observation()
                        .is_some_and(|rival| rival.timeline + 1 == highest.timeline)
                    && self.lineages.may_feed(other, place, highest.timeline - 1, &all_last_seen, claims)
            };
            if highest.volatile && nodes.iter().enumerate().any(is_rival) {
                (past.highest, past.overtook) = (None, None);
            }
        }
    }

    /// Sets the highest timeline from the pasts.
    ///
    /// Returns the lost history if the timeline fell.
    pub(super) fn settle_highest(&mut self) -> Option<LostHistory> {
        let highest = self.pasts.values().filter_map(Past::timeline).fold(self.floor, u32::max);
        let before = std::mem::replace(&mut self.highest_timeline, highest);
        self.lost.retain(|lost| lost.timeline >= before);
        if highest >= before {
            return None;
        }
        self.forgettings += 1;
        self.lineages.forget_above(highest);
        let all = std::mem::take(&mut self.lost).into_iter().filter(|lost| lost.timeline == before);
        all.reduce(|one, other| LostHistory {
            fork: one.fork.or(other.fork),
            position: one.position.max(other.position),
            ..one
        })
    }

    /// Records an answer of a node of the set.
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
        self.lost.extend(past.record(answer));
    }
}

impl Past {
    fn timeline(&self) -> Option<u32> {
        self.highest.map(|shown| shown.timeline)
    }

    /// Ends the claim to write of a standby, a foreign node or a removed one.
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

    /// Records an answer; returns the node's lost history, if there is one.
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
        // Writes after such a promotion are no history of the set, even if the node only replays them again.
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
        if before.is_some_and(|before| !before.is_lost_after(observation, self.receives_since)) {
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
    /// Returns `true` if a lower timeline proves this history lost.
    ///
    /// The control file of one data directory never falls back to a lower timeline. So the directory was replaced
    /// (rebuilt, rewound, restored), for which the server was restarted. Another address belongs to another server,
    /// because a floating address moved. What the control file did not show may just be out of sight. So the node
    /// must receive from another history.
    fn is_lost_after(&self, observation: &Observation, receives: Option<(i32, Instant)>) -> bool {
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
