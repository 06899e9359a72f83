//! Which history a standby is on (pure).
//!
//! After a promotion, a standby that was ahead of the new primary, or that goes on following the old one, has rows
//! that the primary does not have, and no lag. Its timeline would tell, but an ordinary role sees it only in the control
//! file, which may show it minutes late. So positions must tell. The promotion's *fork* is the position up to which the new
//! primary had recovered. Before it, the histories are one, but a standby that is still
//! attached to the old primary may leave it any time. A standby past the fork is on the new history or has parted:
//!
//! * Its timeline, where it shows, decides.
//! * It **parted** if it was past the fork while the new primary was still in recovery, or if it was further than the
//!   new primary was later: no standby can receive what was not written yet.
//! * It **follows** if its receiver brought it past the fork, and only the new primary can have sent that: the receiver
//!   was started after the promotion, and no old primary is there or none that is as far. Or its receiver may be such a
//!   one, and it was seen where the new primary rests, or keeps step with it.
//! * Otherwise it is **unproven**, and serves no read while there is a primary.
//!
//! The same bound gives an old primary away: a standby that was further than its primary is later follows another one.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::{LastSeen, NodeRole, Observation};
use crate::lsn::Lsn;

/// How a standby's history relates to that of the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lineage {
    /// All that it has is the primary's, as far as anything tells.
    Shared,
    /// It may follow an old primary: nothing shows yet that it follows this one.
    Unproven {
        /// Where the primary's timeline began.
        fork: Lsn,
    },
    /// It has what the primary never had.
    Parted {
        /// Where the primary's timeline began; `None` if that was not seen.
        fork: Option<Lsn>,
    },
}

/// What is remembered of all nodes to tell their histories apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lineages {
    /// Promotions, by their timelines in ascending order.
    forks: Vec<Fork>,
    /// By the nodes' places.
    tracks: Vec<Track>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fork {
    timeline: u32,
    /// Up to where the new primary had recovered.
    end: Lsn,
    /// The new primary's place, until the places change.
    primary: Option<usize>,
}

/// What one node showed lately.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Track {
    /// The oldest first.
    samples: VecDeque<Sample>,
    started_at_micros: Option<i64>,
    /// It was out of recovery when it was last seen.
    wrote: bool,
    /// The highest timeline that it was found to follow.
    proven: u32,
    /// The timeline on which it was found not to be, though past its fork.
    parted: Option<u32>,
    /// Its receiver before the last promotion: `None` if it was not seen then.
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

/// Samples kept per node: seconds of regular probes, or the last half second of a failover's.
const SAMPLES: usize = 16;

/// Promotions kept: a standby that is further behind than all of them is behind by any measure.
const FORKS: usize = 8;

/// Positions in step with the new primary's that make a standby its follower; one may be chance.
const STEPS: usize = 3;

/// Longest time between two of the primary's samples that enclose a standby's position.
const STEP: Duration = Duration::from_secs(2);

impl Lineages {
    /// Keeps what holds for the whole set when its nodes change.
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

    /// Remembers what the nodes show.
    pub(crate) fn observe(&mut self, all_last_seen: &[LastSeen]) {
        self.tracks.resize_with(all_last_seen.len(), Track::default);
        for (track, last_seen) in self.tracks.iter_mut().zip(all_last_seen) {
            if let Some(observation) = last_seen.observation() {
                track.observe(observation);
            }
        }
    }

    /// When a node was last asked and still in recovery.
    pub(crate) fn last_in_recovery(&self, place: usize) -> Option<Instant> {
        let samples = &self.tracks.get(place)?.samples;
        samples.iter().rev().find(|sample| sample.in_recovery).map(|sample| sample.sent)
    }

    /// The timeline of which a standby is proof, if its primary is overtaken by another one's standby; 0 otherwise.
    ///
    /// Only a standby that is known to have followed the timeline of this primary proves that: one that may have parted
    /// from it earlier does not fence the true primary.
    pub(crate) fn implied_timeline(&self, standby: usize, all_last_seen: &[LastSeen]) -> u32 {
        let Some(of) = all_last_seen[standby].observation().filter(|e| e.in_recovery && e.streaming) else {
            return 0;
        };
        let overtaken = |(place, last_seen): (usize, &LastSeen)| {
            let primary = last_seen.observation().filter(|e| !e.in_recovery)?;
            let same_set =
                of.system_identifier.is_some() && of.system_identifier == primary.system_identifier;
            let followed = of.timeline >= primary.timeline && primary.timeline > 0;
            let passed = self.tracks[standby].passed(&self.tracks[place]);
            (same_set && followed && passed).then_some(primary.timeline + 1)
        };
        all_last_seen.iter().enumerate().filter_map(overtaken).max().unwrap_or(0)
    }

    /// Finds for each node how its history relates to that of the primary.
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

    /// Remembers where the primary's timeline began, and what the others showed before.
    fn note_promotion(&mut self, primary: usize, observation: &Observation) {
        let Some(end) = observation.recovered_to.filter(|_| observation.timeline > 1) else { return };
        let known = self.forks.iter().position(|fork| fork.timeline == observation.timeline);
        match known.map(|known| &mut self.forks[known]) {
            // A later restart has an end of its own, which is no fork.
            Some(fork) if fork.primary.is_none_or(|place| place == primary) => {
                fork.primary = Some(primary);
                return;
            }
            Some(fork) => (fork.end, fork.primary) = (end, Some(primary)),
            None => {
                self.forks.push(Fork { timeline: observation.timeline, end, primary: Some(primary) });
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
            // The new primary had not even been promoted.
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
        // A proof by positions falls with the proof of the opposite.
        let ahead = primary.is_some_and(|primary| self.tracks[place].passed(&self.tracks[primary]));
        if ahead && observation.timeline < timeline {
            let track = &mut self.tracks[place];
            (track.proven, track.parted) = (observation.timeline, Some(timeline));
        }
        let rivals = Rivals::of(&self.tracks, all_last_seen, by_node, place, primary);
        let unseen = Fork { timeline, end: Lsn::default(), primary };
        let is_seen = self.forks.iter().any(|fork| fork.timeline == timeline);
        // Without the promotion, a standby is suspected only if there is another server that it may follow.
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
        // A server is rewound or rebuilt while it is down.
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

    /// Returns `true` if the standby was further than this primary was later, so that it had that from elsewhere.
    fn passed(&self, primary: &Self) -> bool {
        // A position grows, so the last sample out of recovery is the one that says most.
        let Some(later) = primary.samples.back().filter(|sample| !sample.in_recovery) else { return false };
        let before = self.samples.iter().rev().find(|sample| sample.answered <= later.sent);
        before.is_some_and(|sample| sample.in_recovery && sample.position > later.position)
    }

    /// Returns `true` if its receiver is another one than before the promotion.
    fn reconnected(&self) -> bool {
        let now = self.samples.back().and_then(|sample| sample.receiver);
        self.receiver_before.is_some_and(|before| now.is_some() && now != before)
    }

    /// Returns `true` if it was seen exactly where the primary was, past the fork.
    fn met(&self, primary: &Self, end: Lsn) -> bool {
        let rests = |sample: &&Sample| sample.receiver.is_some() && sample.position > end;
        let written = |position| primary.samples.iter().any(|s| !s.in_recovery && s.position == position);
        self.samples.iter().filter(rests).any(|sample| written(sample.position))
    }

    /// Positions past the fork that lie between two of the primary's, taken right before and after.
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

/// The nodes, other than the primary, from which a standby may have got what it has.
struct Rivals<'t> {
    /// They are seen out of recovery.
    alive: Vec<&'t Track>,
    /// There is one that may be out of recovery, and is not seen.
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

    /// Returns `true` if the standby may get an old primary's writes any time, between two probes as well.
    fn may_feed(&self, standby: &Track) -> bool {
        let receives = standby.samples.back().is_some_and(|sample| sample.receiver.is_some());
        !self.alive.is_empty() || (self.absent && receives && !standby.reconnected())
    }

    /// Returns `true` if the standby can have what is past the fork from the primary alone.
    fn proves(&self, standby: &Track, primary: &Track, end: Lsn) -> bool {
        let Some(last) = standby.samples.back() else { return false };
        // A standby that has parted asks in vain: what it receives ends at the fork.
        if last.receiver.is_none() || last.received.is_none_or(|received| received < last.position) {
            return false;
        }
        let reconnected = standby.reconnected();
        let alone = !self.absent && self.alive.is_empty();
        // Two primaries with the same load write as much, so where a standby is tells nothing of one that never moved.
        let moved = reconnected || alone || standby.receiver_before.is_none();
        let not_absent = reconnected || (!self.absent && (!alone || standby.receiver_before.is_none()));
        let not_alive = self.alive.iter().all(|rival| standby.passed(rival));
        let rests_with = standby.met(primary, end) && !self.alive.iter().any(|rival| standby.met(rival, end));
        (not_absent && not_alive) || (moved && (rests_with || standby.steps(primary, end) >= STEPS))
    }
}

#[cfg(test)]
mod tests;
