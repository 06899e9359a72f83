//! Which history a standby follows (pure).
//!
//! After a promotion, a standby may have rows that the primary lacks, and show no lag. Either it was ahead of the
//! new primary, or it still follows the old one. Its timeline would show this. But an ordinary role sees the
//! timeline in the control file only, which may be minutes late. So positions must decide.
//!
//! The *fork* of a promotion is the position up to which the new primary had recovered. Before the fork, the
//! histories are one, but a standby still attached to the old primary may diverge at any time. A standby past the
//! fork is on the new history or has diverged:
//!
//! * Its timeline, if visible, decides.
//! * It **parted** if it was past the fork while the new primary was still in recovery. It also parted if it was
//!   further than the new primary was later, because no standby can receive what is not written yet.
//! * It **follows** if its receiver brought it past the fork, and only the new primary can have sent that. This
//!   holds if the receiver was started after the promotion, and no old primary is there or none is as far. It also
//!   holds if the receiver may be that new. Then the standby must have been seen where the new primary rests, or
//!   keep step with it.
//! * Otherwise it is **unproven**, and serves no read while there is a primary.
//!
//! The same bound exposes an old primary: a standby that is further than its primary is later follows another one.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::ancestry::TimelineFork;
use super::{LastSeen, NodeRole, Observation};
use crate::lsn::Lsn;

/// The relation of a standby's history to the primary's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lineage {
    /// All that the standby has is the primary's, as far as is known.
    Shared,
    /// The standby may follow an old primary; nothing disproves that yet.
    Unproven {
        /// The position at which the primary's timeline began.
        fork: Lsn,
    },
    /// The standby has what the primary never had.
    Parted {
        /// The start of the primary's timeline; `None` if no probe saw it.
        fork: Option<Lsn>,
    },
}

/// Memory of all nodes' positions, to tell their histories apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lineages {
    /// Promotions, in ascending order of their timelines.
    forks: Vec<Fork>,
    /// One track per node, by place.
    tracks: Vec<Track>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fork {
    timeline: u32,
    /// The position up to which the new primary had recovered.
    end: Lsn,
    /// The new primary's place, until the places change.
    primary: Option<usize>,
    /// `true` if `end` is certainly the fork, and not a later crash recovery's end.
    exact: bool,
    /// The timeline that the new primary is proven to have followed before, at least.
    parent: Option<u32>,
}

/// Recent observations of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Track {
    /// Oldest first.
    samples: VecDeque<Sample>,
    started_at_micros: Option<i64>,
    /// `true` if the node was out of recovery in its last observation.
    wrote: bool,
    /// Highest timeline that the node is proven to follow.
    proven: u32,
    /// The timeline that the node, though past the fork, does not follow.
    parted: Option<u32>,
    /// The receiver before the last promotion; `None` if unobserved.
    receiver_before: Option<Option<i32>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    sent: Instant,
    answered: Instant,
    in_recovery: bool,
    position: Lsn,
    received: Option<Lsn>,
    receiver: Option<i32>,
}

/// Samples kept per node.
///
/// They cover seconds of regular probes, or the last half second of a failover's.
const SAMPLES: usize = 16;

/// Promotions kept: a standby behind all of them is behind by any measure.
const FORKS: usize = 8;

/// Positions in step with the new primary's that prove a follower.
///
/// A single one may be chance.
const STEPS: usize = 3;

/// Longest time between two primary samples that enclose a standby's position.
const STEP: Duration = Duration::from_secs(2);

impl Lineages {
    /// Returns what holds for the whole set when its nodes change.
    pub(crate) fn carry_over(&self) -> Self {
        let forks = self.forks.iter().map(|fork| Fork { primary: None, ..fork.clone() }).collect();
        Self { forks, tracks: Vec::new() }
    }

    /// Forgets the promotions to timelines that are proven to be gone.
    pub(crate) fn forget_above(&mut self, timeline: u32) {
        self.forks.retain(|fork| fork.timeline <= timeline);
        for track in &mut self.tracks {
            track.proven = track.proven.min(timeline);
            track.parted = track.parted.filter(|parted| *parted <= timeline);
        }
    }

    /// Records what the nodes show.
    pub(crate) fn observe(&mut self, all_last_seen: &[LastSeen]) {
        self.tracks.resize_with(all_last_seen.len(), Track::default);
        for (track, last_seen) in self.tracks.iter_mut().zip(all_last_seen) {
            if let Some(observation) = last_seen.observation() {
                track.observe(observation);
            }
        }
    }

    /// Returns the forks that are certain, in ascending order of their timelines.
    pub(crate) fn certain_forks(&self) -> impl Iterator<Item = TimelineFork> + '_ {
        self.forks.iter().filter(|fork| fork.exact).map(|fork| TimelineFork {
            timeline: fork.timeline,
            fork: fork.end,
            parent: fork.parent,
        })
    }

    /// Returns when the node was last asked and still in recovery.
    pub(crate) fn last_in_recovery(&self, place: usize) -> Option<Instant> {
        let samples = &self.tracks.get(place)?.samples;
        samples.iter().rev().find(|sample| sample.in_recovery).map(|sample| sample.sent)
    }

    /// Returns the primary that a standby has overtaken, with its timeline.
    ///
    /// It proves a later timeline if it was further than its primary is now, so it follows another one. Only a standby
    /// known to have followed this primary's timeline proves that. One that may have parted earlier does not fence the
    /// true primary. In a split brain, another primary of the same timeline may have sent the data, and then it proves
    /// nothing.
    ///
    /// `claims` are the timelines on which each node was last seen to write.
    pub(crate) fn overtaken(
        &self,
        standby: usize,
        all_last_seen: &[LastSeen],
        claims: &[Option<u32>],
    ) -> Option<(u32, usize)> {
        let of = all_last_seen[standby].observation().filter(|e| e.in_recovery && e.streaming)?;
        let overtaken = |(place, last_seen): (usize, &LastSeen)| {
            let primary = last_seen.observation().filter(|e| !e.in_recovery)?;
            let same_set =
                of.system_identifier.is_some() && of.system_identifier == primary.system_identifier;
            let followed = of.timeline >= primary.timeline && primary.timeline > 0;
            let is_overtaken = same_set && followed && self.tracks[standby].passed(&self.tracks[place]);
            let is_rival = |other: usize| {
                other != place && self.may_feed(other, standby, primary.timeline, all_last_seen, claims)
            };
            (is_overtaken && !(0..all_last_seen.len()).any(is_rival)).then_some((primary.timeline, place))
        };
        all_last_seen.iter().enumerate().filter_map(overtaken).max()
    }

    /// Returns `true` if a claimant may have sent all that a standby has.
    pub(crate) fn may_feed(
        &self,
        node: usize,
        standby: usize,
        timeline: u32,
        all_last_seen: &[LastSeen],
        claims: &[Option<u32>],
    ) -> bool {
        claims[node] == Some(timeline)
            && match all_last_seen[node].observation() {
                Some(seen) => {
                    !seen.in_recovery
                        && seen.timeline == timeline
                        && !self.tracks[standby].passed(&self.tracks[node])
                }
                // It may have gone on while it was out of sight.
                None => true,
            }
    }

    /// Returns how each node's history relates to the primary's.
    pub(crate) fn trace(
        &mut self,
        all_last_seen: &[LastSeen],
        by_node: &[NodeRole],
        primary: Option<usize>,
    ) -> Vec<Lineage> {
        if let Some((place, observation)) =
            primary.and_then(|place| Some((place, all_last_seen[place].observation()?)))
        {
            self.note_promotion(place, observation);
        }
        let lineages: Vec<_> = (0..all_last_seen.len())
            .map(|place| match all_last_seen[place].observation() {
                Some(observation) if by_node[place] == NodeRole::Replica => {
                    self.trace_one(place, observation, all_last_seen, by_node, primary)
                }
                _ => Lineage::Shared,
            })
            .collect();
        for (track, last_seen) in self.tracks.iter_mut().zip(all_last_seen) {
            if let Some(observation) = last_seen.observation() {
                track.wrote = !observation.in_recovery;
            }
        }
        lineages
    }

    /// Records where the primary's timeline began.
    ///
    /// For the other nodes, the receivers and positions before the promotion are recorded.
    fn note_promotion(&mut self, primary: usize, observation: &Observation) {
        let Some(end) = observation.recovered_to.filter(|_| observation.timeline > 1) else { return };
        let known = self.forks.iter().position(|fork| fork.timeline == observation.timeline);
        let was_standby = self.last_in_recovery(primary).is_some();
        let exact = was_standby || observation.promoted_since_start;
        let parent = self.tracks.get(primary).filter(|_| was_standby).map(|track| track.proven);
        let parent = parent.filter(|parent| *parent > 0 && *parent < observation.timeline);
        match known.map(|known| &mut self.forks[known]) {
            // A later restart recovers to another position, which is no fork.
            Some(fork) if fork.primary.is_none_or(|place| place == primary) => {
                fork.primary = Some(primary);
                return;
            }
            Some(fork) => {
                // Two nodes were promoted to one timeline, so the one number names two histories.
                *fork = Fork { end, primary: Some(primary), exact: false, ..fork.clone() };
            }
            None => {
                let timeline = observation.timeline;
                self.forks.push(Fork { timeline, end, primary: Some(primary), exact, parent });
                self.forks.sort_by_key(|fork| fork.timeline);
                if self.forks.len() > FORKS {
                    self.forks.remove(0);
                }
            }
        }
        let waited = self.last_in_recovery(primary);
        for (place, track) in self.tracks.iter_mut().enumerate() {
            if place == primary {
                continue;
            }
            if track.proven == observation.timeline {
                track.proven = 0;
            }
            let before = waited.and_then(|waited| track.samples.iter().rev().find(|s| s.answered <= waited));
            track.receiver_before = before.map(|sample| sample.receiver);
            // At that time the new primary was still in recovery.
            if before.is_some_and(|sample| sample.in_recovery && sample.position > end) {
                track.parted = Some(observation.timeline);
            }
        }
    }

    fn trace_one(
        &mut self,
        place: usize,
        observation: &Observation,
        all_last_seen: &[LastSeen],
        by_node: &[NodeRole],
        primary: Option<usize>,
    ) -> Lineage {
        self.tracks[place].proven = self.tracks[place].proven.max(observation.timeline);
        let timeline = match primary.and_then(|primary| all_last_seen[primary].observation()) {
            Some(observation) => observation.timeline,
            None => self.forks.last().map_or(0, |fork| fork.timeline),
        };
        // A proof by positions is void once the opposite is proven.
        let ahead = primary.is_some_and(|primary| self.tracks[place].passed(&self.tracks[primary]));
        if ahead && observation.timeline < timeline {
            let track = &mut self.tracks[place];
            (track.proven, track.parted) = (observation.timeline, Some(timeline));
        }
        let rivals = Rivals::of(&self.tracks, all_last_seen, by_node, place, primary);
        let unseen = Fork { timeline, end: Lsn::default(), primary, exact: false, parent: None };
        let is_seen = self.forks.iter().any(|fork| fork.timeline == timeline);
        // If no probe saw the promotion, suspect a standby only if it may follow another server.
        let unseen = Some(&unseen).filter(|_| !is_seen && !rivals.alive.is_empty());
        let track = &self.tracks[place];
        let mut proven = track.proven;
        let mut parted = track.parted;
        let mut lineage = Lineage::Shared;
        for fork in self.forks.iter().chain(unseen).filter(|fork| fork.timeline <= timeline) {
            let is_before = observation.position <= fork.end;
            if fork.timeline <= proven || is_before {
                parted = parted.filter(|parted| *parted != fork.timeline);
                if is_before && fork.timeline > proven && rivals.may_feed(track) {
                    lineage = Lineage::Unproven { fork: fork.end };
                }
                continue;
            }
            let known = Some(fork.end).filter(|end| *end > Lsn::default());
            if parted == Some(fork.timeline) {
                lineage = Lineage::Parted { fork: known };
            } else if primary.is_some_and(|primary| rivals.proves(track, &self.tracks[primary], fork.end)) {
                proven = fork.timeline;
            } else {
                lineage = Lineage::Unproven { fork: fork.end };
            }
        }
        if lineage == Lineage::Shared && parted.is_some() {
            lineage = Lineage::Parted { fork: None };
        }
        if observation.timeline >= timeline && timeline > 0 {
            (lineage, parted) = (Lineage::Shared, None);
        }
        (self.tracks[place].proven, self.tracks[place].parted) = (proven, parted);
        lineage
    }
}

impl Track {
    fn observe(&mut self, observation: &Observation) {
        let started = observation.server.map(|server| server.started_at_micros);
        // A server is rewound or rebuilt only while it is down.
        if started.is_some() && self.started_at_micros.is_some() && self.started_at_micros != started {
            *self = Self::default();
        }
        self.started_at_micros = started.or(self.started_at_micros);
        if self.samples.back().is_some_and(|last| observation.at <= last.sent) {
            return;
        }
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample {
            sent: observation.at,
            answered: observation.answered_at,
            in_recovery: observation.in_recovery,
            position: observation.position,
            received: observation.received,
            receiver: observation.receiver_pid,
        });
    }

    /// Returns `true` if the standby was further than this primary was later.
    ///
    /// It must have received the rest from another server.
    fn passed(&self, primary: &Self) -> bool {
        // A position only grows, so the last sample out of recovery proves most.
        let Some(later) = primary.samples.back().filter(|sample| !sample.in_recovery) else { return false };
        let before = self.samples.iter().rev().find(|sample| sample.answered <= later.sent);
        before.is_some_and(|sample| sample.in_recovery && sample.position > later.position)
    }

    /// Returns `true` if the receiver has changed since the promotion.
    fn reconnected(&self) -> bool {
        let now = self.samples.back().and_then(|sample| sample.receiver);
        self.receiver_before.is_some_and(|before| now.is_some() && now != before)
    }

    /// Returns `true` if the standby met the primary's position past the fork.
    fn met(&self, primary: &Self, end: Lsn) -> bool {
        let rests = |sample: &&Sample| sample.receiver.is_some() && sample.position > end;
        let written = |position| primary.samples.iter().any(|s| !s.in_recovery && s.position == position);
        self.samples.iter().filter(rests).any(|sample| written(sample.position))
    }

    /// Counts positions past the fork between two primary samples.
    ///
    /// One sample was taken just before, the other just after.
    fn steps(&self, primary: &Self, end: Lsn) -> usize {
        let mut steps: Vec<Lsn> =
            self.samples.iter().filter_map(|sample| sample.step(primary, end)).collect();
        steps.dedup();
        steps.len()
    }
}

impl Sample {
    fn step(&self, primary: &Track, end: Lsn) -> Option<Lsn> {
        let position = self.received.unwrap_or_default().max(self.position);
        let writes = || primary.samples.iter().filter(|sample| !sample.in_recovery);
        let before = writes().rev().find(|sample| sample.answered <= self.sent)?;
        let after = writes().find(|sample| sample.sent >= self.answered)?;
        let in_step = (before.position..=after.position).contains(&position)
            && after.position > before.position
            && after.sent.saturating_duration_since(before.sent) <= STEP;
        (in_step && position > end && self.receiver.is_some()).then_some(position)
    }
}

/// Nodes other than the primary that a standby may have received from.
struct Rivals<'t> {
    /// Rivals seen out of recovery.
    alive: Vec<&'t Track>,
    /// `true` if an unseen node may be out of recovery.
    absent: bool,
}

impl<'t> Rivals<'t> {
    fn of(
        tracks: &'t [Track],
        all_last_seen: &[LastSeen],
        by_node: &[NodeRole],
        standby: usize,
        primary: Option<usize>,
    ) -> Self {
        let others = || {
            let is_other = |place: &usize| *place != standby && Some(*place) != primary;
            (0..tracks.len()).filter(is_other).filter(|place| by_node[*place] != NodeRole::Alias)
        };
        let takes_writes = |place: &usize| {
            by_node[*place] != NodeRole::Foreign
                && all_last_seen[*place].observation().is_some_and(|observation| !observation.in_recovery)
        };
        let may_take_writes = |place: usize| {
            let track = &tracks[place];
            all_last_seen[place].observation().is_none() && (track.wrote || track.samples.is_empty())
        };
        Self {
            alive: others().filter(takes_writes).map(|place| &tracks[place]).collect(),
            absent: others().any(may_take_writes),
        }
    }

    /// Returns `true` if an old primary may feed the standby.
    ///
    /// This may happen at any time, even between two probes.
    fn may_feed(&self, standby: &Track) -> bool {
        let receives = standby.samples.back().is_some_and(|sample| sample.receiver.is_some());
        !self.alive.is_empty() || (self.absent && receives && !standby.reconnected())
    }

    /// Returns `true` if only the primary can have sent the standby's data.
    ///
    /// Only the data past the fork counts.
    fn proves(&self, standby: &Track, primary: &Track, end: Lsn) -> bool {
        let Some(last) = standby.samples.back() else { return false };
        // A parted standby asks in vain: what it receives ends at the fork.
        if last.receiver.is_none() || last.received.is_none_or(|received| received < last.position) {
            return false;
        }
        let reconnected = standby.reconnected();
        let alone = !self.absent && self.alive.is_empty();
        // Two primaries with the same load write equally fast, so a standby's position proves nothing if it never
        // reconnected.
        let moved = reconnected || alone || standby.receiver_before.is_none();
        let not_absent = reconnected || (!self.absent && (!alone || standby.receiver_before.is_none()));
        let not_alive = self.alive.iter().all(|rival| standby.passed(rival));
        let rests_with = standby.met(primary, end) && !self.alive.iter().any(|rival| standby.met(rival, end));
        (not_absent && not_alive) || (moved && (rests_with || standby.steps(primary, end) >= STEPS))
    }
}

#[cfg(test)]
mod tests;
