//! From what was seen to who is who.
//!
//! `pg_is_in_recovery() = false` does not make a primary: an old one that comes back says so too. The rules,
//! in their order:
//!
//! 1. A node whose system identifier is not the set's is **foreign**.
//! 2. A promotion begins a new timeline. The highest one ever seen is remembered, also while nobody shows it. A
//!    node out of recovery on a lower one is a **stale primary**: what it takes now would be lost.
//! 3. Out of recovery on the highest timeline: alone, it is **the primary**; together with others, each of
//!    them is a **contender**, and nobody takes writes.
//!
//! The function is pure: the same memory and sightings give the same verdict.

use tokio::time::Instant;

use super::lag::History;
use super::lineage::{Lineage, Lineages};
use super::{Evidence, Lag, Sighting, Standing};
use crate::causal::Lsn;
use crate::config::RoleGuess;

/// What is remembered from one judgement to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// The set's system identifier, once a primary has shown it.
    system_identifier: Option<u64>,
    /// The highest timeline that any node of the set ever showed.
    highest_timeline: u32,
    /// Which node was the primary last, to notice when another one is.
    primary: Option<usize>,
    /// Where the primary was, and when.
    history: History,
    /// What tells the histories of the nodes apart.
    lineages: Lineages,
    /// How each of the primaries came to be one, in the order in which it was seen.
    pub(crate) takeovers: Vec<Takeover>,
}

/// How a primary came to write: after a recovery, which may have lost the end of the log, or after a clean start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Takeover {
    pub(crate) timeline: u32,
    /// Up to where it recovered; `None` after a clean start.
    pub(crate) end: Option<Lsn>,
    /// When it was first seen.
    pub(crate) at: Instant,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// What each node is.
    pub(crate) standings: Vec<Standing>,
    /// How far each replica is behind.
    pub(crate) lags: Vec<Option<Lag>>,
    /// How the history of each node relates to the primary's.
    pub(crate) lineages: Vec<Lineage>,
    /// The primary, if there is exactly one.
    pub(crate) primary: Option<usize>,
    /// The highest timeline ever seen.
    pub(crate) timeline: u32,
}

impl Verdict {
    /// The nodes that all claim to be the primary.
    pub(crate) fn contenders(&self) -> impl Iterator<Item = usize> + '_ {
        let contends = |(i, standing): (usize, &Standing)| (*standing == Standing::Contender).then_some(i);
        self.standings.iter().enumerate().filter_map(contends)
    }
}

impl Memory {
    /// Keeps what holds for the whole set when its nodes change: its identity and its highest timeline.
    pub(crate) fn carry_over(&self) -> Self {
        Self {
            system_identifier: self.system_identifier,
            highest_timeline: self.highest_timeline,
            primary: None,
            history: self.history.clone(),
            lineages: self.lineages.carry_over(),
            takeovers: self.takeovers.clone(),
        }
    }
}

/// Judges who is who.
pub(crate) fn judge(
    memory: &Memory,
    sightings: &[Sighting],
    guesses: &[RoleGuess],
    now: Instant,
) -> (Memory, Verdict) {
    let mut memory = memory.clone();
    memory.lineages.observe(sightings);
    let sightings = &with_implied_timelines(sightings, &memory.lineages);
    let identity = memory.system_identifier.or_else(|| adopt_identity(sightings, guesses));
    let ours = |evidence: &Evidence| identity.is_some() && evidence.system_identifier == identity;
    let seen = || sightings.iter().filter_map(Sighting::evidence).filter(|evidence| ours(evidence));
    memory.highest_timeline =
        seen().map(|evidence| evidence.timeline).fold(memory.highest_timeline, u32::max);

    let claims = seen().filter(|e| !e.in_recovery && e.timeline == memory.highest_timeline).count();
    let standing = |sighting: &Sighting| match sighting.evidence() {
        None => Standing::Unknown,
        // Its role may not ask for its identity. If no node tells one, a standby serves what no other node can; writes
        // need more than that.
        Some(evidence) if evidence.system_identifier.is_none() => {
            if identity.is_none() && evidence.in_recovery { Standing::Replica } else { Standing::Unknown }
        }
        Some(_) if identity.is_none() => Standing::Unknown,
        Some(evidence) if !ours(evidence) => Standing::Foreign,
        Some(evidence) if evidence.in_recovery => Standing::Replica,
        Some(evidence) if evidence.timeline < memory.highest_timeline => Standing::StalePrimary,
        Some(_) if claims > 1 => Standing::Contender,
        Some(_) => Standing::Primary,
    };
    let standings: Vec<_> = sightings.iter().map(standing).collect();
    let primary = standings.iter().position(|standing| *standing == Standing::Primary);

    if let Some(primary) = primary {
        // An identity is kept for good once a primary bears it.
        memory.system_identifier = identity;
        if memory.primary.replace(primary).is_some_and(|before| before != primary) {
            memory.history.clear();
        }
        if let Some(evidence) = sightings[primary].evidence() {
            let waited = memory.lineages.last_in_recovery(primary);
            memory.history.follow(evidence, waited);
            let takeover =
                Takeover { timeline: evidence.timeline, end: evidence.recovered_to, at: evidence.at };
            let same = |last: &Takeover| (last.timeline, last.end) == (takeover.timeline, takeover.end);
            if !memory.takeovers.last().is_some_and(same) {
                memory.takeovers.push(takeover);
            }
        }
    }
    let lineages = memory.lineages.trace(sightings, &standings, primary);
    for ((standing, sighting), lineage) in standings.iter().zip(sightings).zip(&lineages) {
        if let (Standing::Replica, Some(evidence), Lineage::Shared) = (standing, sighting.evidence(), lineage)
        {
            memory.history.follow_standby(evidence);
        }
    }
    let lags = standings
        .iter()
        .zip(sightings)
        .zip(&lineages)
        .map(|((standing, sighting), lineage)| match standing {
            Standing::Replica => sighting.evidence().map(|evidence| match lineage {
                Lineage::Shared => memory.history.lag(evidence, now),
                // Its position says nothing about what it lacks.
                Lineage::Unproven { .. } | Lineage::Parted { .. } => Lag { bytes: None, time: None },
            }),
            _ => None,
        })
        .collect();
    let verdict = Verdict { standings, lags, lineages, primary, timeline: memory.highest_timeline };
    (memory, verdict)
}

/// A standby that is further than its primary shows that there is a later timeline, whatever its control file says.
fn with_implied_timelines(sightings: &[Sighting], lineages: &Lineages) -> Vec<Sighting> {
    let raise = |(place, sighting): (usize, &Sighting)| match sighting {
        Sighting::Seen(evidence) => {
            let timeline = evidence.timeline.max(lineages.implied_timeline(place, sightings));
            Sighting::Seen(Evidence { timeline, ..evidence.clone() })
        }
        Sighting::Unseen | Sighting::Lost => sighting.clone(),
    };
    sightings.iter().enumerate().map(raise).collect()
}

/// Whose identity the set takes while no primary has shown it.
///
/// The node that is configured as primary decides, if it is there; otherwise, once every node was looked at,
/// most of those that are there (of equals, the first in the configuration).
fn adopt_identity(sightings: &[Sighting], guesses: &[RoleGuess]) -> Option<u64> {
    let configured = sightings.iter().zip(guesses).find(|(_, guess)| **guess == RoleGuess::Primary);
    let configured = configured.and_then(|(sighting, _)| sighting.evidence());
    if let Some(identifier) = configured.and_then(|evidence| evidence.system_identifier) {
        return Some(identifier);
    }
    if sightings.iter().any(|sighting| matches!(sighting, Sighting::Unseen)) {
        return None;
    }
    let identities: Vec<_> =
        sightings.iter().filter_map(Sighting::evidence).filter_map(|e| e.system_identifier).collect();
    let votes = |identity: u64| identities.iter().filter(|other| **other == identity).count();
    // `max_by_key` takes the last of equals, so the order is turned around.
    identities.iter().rev().copied().max_by_key(|identity| votes(*identity))
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    pub(in crate::topology) fn standby(timeline: u32, position: u64, at: Instant) -> Evidence {
        Evidence::standby(timeline, position, at)
    }

    fn primary(timeline: u32, at: Instant) -> Sighting {
        Sighting::Seen(Evidence { in_recovery: false, ..standby(timeline, 0, at) })
    }

    fn replica(timeline: u32, at: Instant) -> Sighting {
        Sighting::Seen(standby(timeline, 0, at))
    }

    const GUESSES: [RoleGuess; 3] = [RoleGuess::Primary, RoleGuess::Replica, RoleGuess::Replica];

    fn run(memory: &Memory, sightings: &[Sighting], now: Instant) -> (Memory, Vec<Standing>, Option<usize>) {
        let (memory, verdict) = judge(memory, sightings, &GUESSES, now);
        (memory, verdict.standings, verdict.primary)
    }

    #[test]
    fn roles_are_discovered_whatever_the_configuration_says() {
        let now = Instant::now();
        let (_, standings, primary) =
            run(&Memory::default(), &[replica(1, now), primary(1, now), Sighting::Lost], now);
        assert_eq!(standings, [Standing::Replica, Standing::Primary, Standing::Unknown]);
        assert_eq!(primary, Some(1));
    }

    #[test]
    fn an_old_primary_that_comes_back_is_fenced() {
        let now = Instant::now();
        let before = [primary(1, now), replica(1, now), replica(1, now)];
        let (memory, ..) = run(&Memory::default(), &before, now);
        let promoted = [Sighting::Lost, primary(2, now), replica(2, now)];
        let (memory, _, at) = run(&memory, &promoted, now);
        assert_eq!(at, Some(1));
        // Even when the new one is gone: what the old one takes would be lost.
        let (_, standings, at) = run(&memory, &[primary(1, now), Sighting::Lost, Sighting::Lost], now);
        assert_eq!((standings[0], at), (Standing::StalePrimary, None));
    }

    #[test]
    fn a_standby_that_follows_a_new_primary_gives_the_old_one_away() {
        let now = Instant::now();
        let (_, standings, at) =
            run(&Memory::default(), &[primary(1, now), Sighting::Lost, replica(2, now)], now);
        assert_eq!((standings[0], at), (Standing::StalePrimary, None));
    }

    #[test]
    fn two_primaries_on_one_timeline_contend_until_one_is_left() {
        let now = Instant::now();
        let both = [Sighting::Lost, primary(2, now), primary(2, now)];
        let (memory, standings, at) = run(&Memory::default(), &both, now);
        assert_eq!(standings[1..], [Standing::Contender; 2]);
        assert_eq!(at, None);
        let (_, standings, at) = run(&memory, &[Sighting::Lost, primary(2, now), Sighting::Lost], now);
        assert_eq!((standings[1], at), (Standing::Primary, Some(1)));
    }

    #[test]
    fn a_node_of_another_cluster_is_foreign_and_raises_no_timeline() {
        let now = Instant::now();
        let other = Evidence { system_identifier: Some(8), in_recovery: false, ..standby(9, 0, now) };
        let sightings = [primary(1, now), Sighting::Seen(other), replica(1, now)];
        let (memory, standings, at) = run(&Memory::default(), &sightings, now);
        assert_eq!(standings, [Standing::Primary, Standing::Foreign, Standing::Replica]);
        assert_eq!((at, memory.highest_timeline), (Some(0), 1));
    }

    #[test]
    fn an_identity_is_not_taken_from_whoever_answers_first() {
        let now = Instant::now();
        let other = Evidence { system_identifier: Some(8), ..standby(1, 0, now) };
        let first = [Sighting::Unseen, Sighting::Seen(other.clone()), Sighting::Unseen];
        let (memory, standings, _) = run(&Memory::default(), &first, now);
        assert_eq!(standings[1], Standing::Unknown);
        let then = [primary(1, now), Sighting::Seen(other), replica(1, now)];
        let (_, standings, _) = run(&memory, &then, now);
        assert_eq!(standings, [Standing::Primary, Standing::Foreign, Standing::Replica]);
    }

    /// A probe that could not tell the identity made its node lost.
    #[test]
    fn a_node_without_an_identity_takes_no_writes_and_reads_only_among_its_like() {
        let now = Instant::now();
        let without = |evidence| Sighting::Seen(Evidence { system_identifier: None, ..evidence });
        let alone =
            [without(Evidence::primary(1, 0, now)), without(standby(1, 0, now)), without(standby(1, 0, now))];
        let (_, standings, at) = run(&Memory::default(), &alone, now);
        assert_eq!(standings, [Standing::Unknown, Standing::Replica, Standing::Replica]);
        assert_eq!(at, None);
        let one = [primary(1, now), without(standby(1, 0, now)), replica(1, now)];
        let (_, standings, at) = run(&Memory::default(), &one, now);
        assert_eq!(standings, [Standing::Primary, Standing::Unknown, Standing::Replica]);
        assert_eq!(at, Some(0));
    }

    fn any_sighting(now: Instant) -> impl Strategy<Value = Sighting> {
        prop_oneof![
            Just(Sighting::Unseen),
            Just(Sighting::Lost),
            (any::<bool>(), 1_u64..3, 1_u32..4, 0_u64..100).prop_map(
                move |(in_recovery, id, timeline, position)| {
                    let position = standby(timeline, position, now);
                    Sighting::Seen(Evidence { in_recovery, system_identifier: Some(id), ..position })
                }
            ),
        ]
    }

    proptest! {
        /// Whatever is seen in whatever order: at most one primary, never one in recovery, on the highest
        /// timeline ever seen, and of one identity for good.
        #[test]
        fn there_is_never_a_wrong_primary(
            rounds in prop::collection::vec(prop::collection::vec(any_sighting(Instant::now()), 3), 1..12),
        ) {
            let mut now = Instant::now();
            let mut memory = Memory::default();
            let mut highest = 0;
            let mut identity = None;
            for sightings in rounds {
                now += Duration::from_millis(500);
                let (next, verdict) = judge(&memory, &sightings, &GUESSES, now);
                prop_assert!(next.highest_timeline >= memory.highest_timeline);
                highest = highest.max(next.highest_timeline);
                let primaries = verdict.standings.iter().filter(|s| **s == Standing::Primary).count();
                prop_assert_eq!(primaries, usize::from(verdict.primary.is_some()));
                if let Some(primary) = verdict.primary {
                    let evidence = sightings[primary].evidence().expect("a primary was seen");
                    prop_assert!(!evidence.in_recovery);
                    prop_assert_eq!(evidence.timeline, highest);
                    prop_assert_eq!(*identity.get_or_insert(evidence.system_identifier), evidence.system_identifier);
                    prop_assert_eq!(verdict.contenders().count(), 0);
                }
                memory = next;
            }
        }
    }
}
