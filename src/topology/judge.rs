//! From what was seen to who is who.
//!
//! `pg_is_in_recovery() = false` does not make a primary: an old one that comes back says so too. The rules,
//! in their order:
//!
//! 1. The set's system identifier is the one that most nodes show (`identity`). A node that shows another one is **foreign**.
//! 2. A promotion begins a new timeline. The highest one is remembered, also while no node shows it. A
//!    node out of recovery on a lower one is a **stale primary**: what it takes now would be lost. The memory ends
//!    only when every node that showed the higher timeline was seen on a lower one since (`memory`).
//! 3. Out of recovery on the highest timeline: alone, it is **the primary**. If another node was ever seen so,
//!    both are **contenders**, and no node takes writes, until one of them is gone for good: it is a standby
//!    or foreign, shows another timeline, or left the configuration.
//!
//! A node that is configured as not promotable is never the primary: out of recovery, it is fenced, and what it wrote counts
//! for nothing. Of the names of one server process, one is judged, and the others are its **aliases** (`alias`).
//!
//! The function is pure: the same memory and sightings give the same verdict.

use std::sync::Arc;

use tokio::time::Instant;

use super::alias;
use super::identity::{Vote, vote};
use super::lineage::{Lineage, Lineages};
use super::memory::{Look, LostHistory, Memory};
use super::{Evidence, Lag, Sighting, Standing};

/// A configured node, as it was last seen.
#[derive(Debug, Clone)]
pub(crate) struct Seen<'s> {
    /// The configured address (`host:port`), by which it is remembered.
    pub(crate) node: Arc<str>,
    pub(crate) sighting: &'s Sighting,
    /// It may be promoted; otherwise it is never the primary.
    pub(crate) promotable: bool,
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
    /// The node that represents its server, for each node that is an alias.
    pub(crate) aliases: Vec<Option<usize>>,
    /// The primary, if there is exactly one.
    pub(crate) primary: Option<usize>,
    /// The highest timeline that counts.
    pub(crate) timeline: u32,
    /// The nodes that all claim to be the primary, also those that are out of sight.
    pub(crate) contenders: Vec<usize>,
    /// The identifiers that the nodes showed last, if they contradict each other so that none counts.
    pub(crate) mismatch: Option<Vec<Option<u64>>>,
    /// The identifier that the set goes by.
    pub(crate) system_identifier: Option<u64>,
    /// The history that is gone, so that the highest timeline fell.
    pub(crate) lost: Option<LostHistory>,
}

/// Judges who is who.
pub(crate) fn judge(memory: &mut Memory, nodes: &[Seen<'_>], now: Instant) -> Verdict {
    memory.keep(nodes.iter().map(|seen| &seen.node));
    alias::follow(memory, nodes);
    let aliases = alias::representatives(memory, nodes);
    let vote = elect(memory, nodes, &aliases);
    let shown: Vec<Sighting> = nodes.iter().map(|seen| seen.sighting.clone()).collect();
    memory.lineages.observe(&shown);
    let sightings = with_implied_timelines(&shown, &memory.lineages);
    // Most nodes may speak against an adopted identity: then nothing is written, and it still tells whose the nodes are.
    let identity = match vote {
        Vote::One(identifier) => Some(identifier),
        Vote::Open | Vote::Refused => memory.system_identifier,
    };
    let ours = |evidence: &Evidence| identity.is_some() && evidence.system_identifier == identity;
    if let Some(identity) = identity {
        memory.go_by(identity);
    }
    for (i, Seen { node, promotable, .. }) in nodes.iter().enumerate() {
        let Some(evidence) = sightings[i].evidence() else { continue };
        if let Some(timeline) = aliases[i].and_then(|of| sightings[of].evidence()).map(|of| of.timeline) {
            memory.record_alias(node, timeline);
        } else if ours(evidence) {
            let implied = shown[i].evidence().is_some_and(|shown| shown.timeline < evidence.timeline);
            // A primary on its timeline is far enough to have sent what the node has.
            let fed = || {
                sightings.iter().filter_map(Sighting::evidence).filter(|e| ours(e) && !e.in_recovery).any(
                    |primary| primary.timeline == evidence.timeline && primary.position >= evidence.position,
                )
            };
            memory.record(
                node,
                &Look { evidence, implied, fed: evidence.in_recovery && fed(), promotable: *promotable },
            );
        } else if identity.is_some()
            && evidence.system_identifier.is_some()
            && let Some(past) = memory.pasts.get_mut(node)
        {
            past.forget_writing();
        }
    }
    let lost = memory.settle_highest();
    let highest = memory.highest_timeline;

    let claims = |(i, seen): (usize, &Seen<'_>)| {
        let wrote = memory.pasts.get(&seen.node).and_then(|past| past.wrote);
        wrote.filter(|wrote| wrote.timeline == highest).map(|_| i)
    };
    let mut claims: Vec<usize> = nodes.iter().enumerate().filter_map(claims).collect();
    forget_names(memory, nodes, &mut claims);
    let standing = |(i, sighting): (usize, &Sighting)| match sighting.evidence() {
        None => Standing::Unknown,
        Some(_) if aliases[i].is_some() => Standing::Alias,
        // Its role may not ask for its identity. If no node tells one, a standby serves what no other node can; writes
        // need more than that.
        Some(evidence) if evidence.system_identifier.is_none() => {
            let alone = identity.is_none() && vote != Vote::Refused;
            if alone && evidence.in_recovery { Standing::Replica } else { Standing::Unknown }
        }
        Some(_) if identity.is_none() => Standing::Unknown,
        Some(evidence) if !ours(evidence) => Standing::Foreign,
        Some(evidence) if evidence.in_recovery => Standing::Replica,
        Some(_) if !nodes[i].promotable => Standing::NotPromotable,
        Some(evidence) if evidence.timeline < highest => Standing::StalePrimary,
        Some(_) if claims.len() > 1 || vote == Vote::Refused => Standing::Contender,
        Some(_) => Standing::Primary,
    };
    let standings: Vec<_> = sightings.iter().enumerate().map(standing).collect();
    let primary = standings.iter().position(|standing| *standing == Standing::Primary);

    if let Some(primary) = primary {
        // An identity is kept for good once a primary bears it.
        memory.system_identifier = identity;
        let node = &nodes[primary].node;
        let is_other = memory.primary.replace(Arc::clone(node)).is_some_and(|before| before != *node);
        if let Some(evidence) = sightings[primary].evidence() {
            // Without a promotion in between, two primaries have two histories.
            if is_other && memory.history.timeline() == evidence.timeline {
                memory.history.clear();
            }
            let waited = memory.lineages.last_in_recovery(primary);
            memory.history.follow(evidence, waited);
        }
    }
    let lineages = memory.lineages.trace(&sightings, &standings, primary);
    for ((standing, sighting), lineage) in standings.iter().zip(&sightings).zip(&lineages) {
        if let (Standing::Replica, Some(evidence), Lineage::Shared) = (standing, sighting.evidence(), lineage)
        {
            memory.history.follow_standby(evidence);
        }
    }
    let lags = standings
        .iter()
        .zip(&sightings)
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
    let mismatch = (vote == Vote::Refused).then(|| identifiers(memory, nodes));
    let contenders = if claims.len() > 1 { claims } else { Vec::new() };
    Verdict {
        standings,
        lags,
        lineages,
        aliases,
        primary,
        timeline: highest,
        contenders,
        mismatch,
        system_identifier: identity,
        lost,
    }
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

/// Leaves of several claims of one server process the one that is seen: a name that is out of sight is no second server.
fn forget_names(memory: &Memory, nodes: &[Seen<'_>], claims: &mut Vec<usize>) {
    let server = |place: usize| {
        memory.pasts.get(&nodes[place].node).and_then(|past| past.wrote).and_then(|wrote| wrote.server)
    };
    let is_seen = |place: usize| nodes[place].sighting.evidence().is_some();
    let all = claims.clone();
    claims.retain(|place| {
        let is_better = |other: &usize| {
            let same = server(*place).zip(server(*other)).is_some_and(|(a, b)| a.is_same_server(&b));
            same && (!is_seen(*other), *other) < (!is_seen(*place), *place)
        };
        !all.iter().any(is_better)
    });
}

/// Notes the identifiers that the nodes show, and lets them vote.
fn elect(memory: &mut Memory, nodes: &[Seen<'_>], aliases: &[Option<usize>]) -> Vote {
    for Seen { node, sighting, .. } in nodes {
        let Some(evidence) = sighting.evidence().filter(|e| e.system_identifier.is_some()) else { continue };
        if let Some(past) = memory.pasts.get_mut(node) {
            past.system_identifier = evidence.system_identifier;
            past.last = Some(evidence.clone()).filter(|_| memory.system_identifier.is_none());
        }
    }
    // One server has one vote, however many names it has.
    let has_vote = |(seen, alias): (&Seen<'_>, &Option<usize>)| {
        let was_alias = memory.pasts.get(&seen.node).is_some_and(|past| past.was_alias);
        alias.is_none() && (seen.sighting.evidence().is_some() || !was_alias)
    };
    let voters: Vec<bool> = nodes.iter().zip(aliases).map(has_vote).collect();
    let is_pending =
        |(seen, votes): &(&Seen<'_>, &bool)| **votes && matches!(seen.sighting, Sighting::Unseen);
    let pending = nodes.iter().zip(&voters).filter(is_pending).count();
    let shown = identifiers(memory, nodes).into_iter().zip(voters);
    let shown: Vec<_> = shown.filter_map(|(shown, votes)| votes.then_some(shown)).collect();
    vote(memory.system_identifier, &shown, pending)
}

/// The identifier that each node showed last.
fn identifiers(memory: &Memory, nodes: &[Seen<'_>]) -> Vec<Option<u64>> {
    let of = |seen: &Seen<'_>| memory.pasts.get(&seen.node).and_then(|past| past.system_identifier);
    nodes.iter().map(of).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::causal::Lsn;
    use crate::topology::ServerIdentity;

    pub(in crate::topology) fn standby(timeline: u32, position: u64, at: Instant) -> Evidence {
        Evidence::standby(timeline, position, at)
    }

    fn primary(timeline: u32, at: Instant) -> Sighting {
        Sighting::Seen(Evidence { in_recovery: false, ..standby(timeline, 0, at) })
    }

    fn replica(timeline: u32, at: Instant) -> Sighting {
        Sighting::Seen(standby(timeline, 0, at))
    }

    pub(super) fn seen(sightings: &[Sighting]) -> Vec<Seen<'_>> {
        let node = |(i, sighting)| {
            let node = Arc::from(format!("node-{i}:5432"));
            Seen { node, sighting, promotable: true }
        };
        sightings.iter().enumerate().map(node).collect()
    }

    fn run(memory: &Memory, sightings: &[Sighting], now: Instant) -> (Memory, Vec<Standing>, Option<usize>) {
        let mut memory = memory.clone();
        let verdict = judge(&mut memory, &seen(sightings), now);
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

    /// As a server process that started then, at its own port.
    fn by(server: u16, started: i64, evidence: Evidence) -> Sighting {
        let server = ServerIdentity { started_at_micros: started, port: server, address: None };
        Sighting::Seen(Evidence { server: Some(server), ..evidence })
    }

    /// As soon as one of them was out of sight, the other one silently became the primary.
    #[test]
    fn two_primaries_on_one_timeline_contend_until_one_is_gone_for_good() {
        let now = Instant::now();
        let well = [primary(1, now), replica(1, now), replica(1, now)];
        let (memory, ..) = run(&Memory::default(), &well, now);
        let both = [Sighting::Lost, primary(2, now), primary(2, now)];
        let (memory, standings, at) = run(&memory, &both, now);
        assert_eq!(standings[1..], [Standing::Contender; 2]);
        assert_eq!(at, None);
        let (memory, standings, at) = run(&memory, &[Sighting::Lost, primary(2, now), Sighting::Lost], now);
        assert_eq!((standings[1], at), (Standing::Contender, None), "one that is out of sight still counts");
        let foreign = Sighting::Seen(Evidence { system_identifier: Some(8), ..Evidence::primary(1, 0, now) });
        for gone in [replica(2, now), primary(1, now), foreign] {
            let (_, standings, at) = run(&memory, &[Sighting::Lost, primary(2, now), gone.clone()], now);
            assert_eq!((standings[1], at), (Standing::Primary, Some(1)), "{gone:?}");
        }
        let (_, standings, at) = run(&memory, &[primary(3, now), primary(2, now), primary(2, now)], now);
        assert_eq!(standings[1..], [Standing::StalePrimary; 2], "a higher timeline was begun");
        assert_eq!(at, Some(0));
        let mut left = memory;
        let verdict = judge(&mut left, &seen(&[Sighting::Lost, primary(2, now)]), now);
        assert_eq!(verdict.primary, Some(1), "it left the configuration");
    }

    /// One after the other, the two were never seen together.
    #[test]
    fn a_second_primary_on_one_timeline_is_a_conflict_though_the_first_is_out_of_sight() {
        let now = Instant::now();
        let first = [Sighting::Lost, primary(2, now), replica(1, now)];
        let (memory, _, at) = run(&Memory::default(), &first, now);
        assert_eq!(at, Some(1));
        let mut memory = memory;
        let then = [Sighting::Lost, Sighting::Lost, primary(2, now)];
        let verdict = judge(&mut memory, &seen(&then), now);
        assert_eq!((verdict.contenders.as_slice(), verdict.primary), (&[1, 2][..], None));
        // Other nodes of the configuration change places, and nothing is forgotten.
        let mut turned = seen(&then);
        turned.reverse();
        let verdict = judge(&mut memory, &turned, now);
        assert_eq!((verdict.contenders.as_slice(), verdict.primary), (&[0, 1][..], None));
        assert_eq!(memory.recoveries.iter().count(), 2, "both came to write");
    }

    /// It was remembered for ever, and the one true primary stayed fenced until the program was restarted.
    #[test]
    fn the_highest_timeline_falls_when_every_node_that_showed_it_shows_a_lower_one() {
        let now = Instant::now();
        let leader = || by(1, 10, Evidence::primary(7, 900, now));
        let promoted = Evidence { recovered_to: Some(Lsn::new(850)), ..Evidence::primary(8, 950, now) };
        let both = [leader(), by(2, 20, promoted.clone()), by(3, 30, standby(8, 950, now))];
        let (memory, standings, _) = run(&Memory::default(), &both, now);
        assert_eq!(standings[0], Standing::StalePrimary);
        let judged = |memory: &mut Memory, sightings: [Sighting; 3]| {
            let verdict = judge(memory, &seen(&sightings), now);
            (verdict.primary, verdict.lost)
        };
        let rebuilt = |server| by(server, 100, standby(7, 900, now));
        let mut memory = memory;
        assert_eq!(judged(&mut memory, [leader(), Sighting::Lost, Sighting::Lost]), (None, None));
        assert_eq!(
            judged(&mut memory, [leader(), rebuilt(2), Sighting::Lost]),
            (None, None),
            "one still has it"
        );
        // The same process with a lower one: its receiver is gone, and the control file is late.
        let late = by(3, 30, standby(7, 950, now));
        assert_eq!(judged(&mut memory, [leader(), rebuilt(2), late]), (None, None));
        let (primary, lost) = judged(&mut memory, [leader(), rebuilt(2), rebuilt(3)]);
        assert_eq!(primary, Some(0));
        let expected = LostHistory { timeline: 8, fork: Some(Lsn::new(850)), position: Lsn::new(950) };
        assert_eq!(lost, Some(expected), "what was lost is told, once");
        assert_eq!(judged(&mut memory, [leader(), rebuilt(2), rebuilt(3)]), (Some(0), None));
        assert_eq!(judged(&mut memory, [leader(), by(2, 100, promoted), rebuilt(3)]).0, Some(1), "a new one");
    }

    #[test]
    fn a_node_that_left_the_configuration_proves_nothing() {
        let now = Instant::now();
        let (memory, ..) = run(&Memory::default(), &[primary(1, now), primary(2, now)], now);
        let (memory, standings, at) = run(&memory, &[primary(1, now)], now);
        assert_eq!((standings[0], at), (Standing::StalePrimary, None));
        let mut memory = memory;
        memory.forget(now);
        let (_, _, at) = run(&memory, &[primary(1, now)], now);
        assert_eq!(at, Some(0), "the operator decides");
    }

    /// An address that leads to another server by now says nothing of the one that it led to before.
    #[test]
    fn a_floating_address_that_moves_back_to_an_old_primary_proves_nothing() {
        let now = Instant::now();
        let old = || by(1, 10, Evidence::primary(1, 900, now));
        let (memory, ..) = run(&Memory::default(), &[by(2, 20, Evidence::primary(2, 900, now))], now);
        let (_, standings, at) = run(&memory, &[old()], now);
        assert_eq!((standings[0], at), (Standing::StalePrimary, None));
    }

    /// What a WAL receiver shows with `pg_monitor` is not shown any more when the receiver is gone.
    #[test]
    fn a_standby_that_lost_its_receiver_does_not_prove_that_a_timeline_is_gone() {
        let now = Instant::now();
        let leader = || Sighting::Seen(Evidence::primary(1, 900, now));
        let receives =
            |timeline| Evidence { received_timeline: Some(timeline), ..standby(timeline, 900, now) };
        let (memory, ..) = run(&Memory::default(), &[leader(), by(2, 20, receives(2))], now);
        let (memory, standings, _) = run(&memory, &[leader(), by(2, 30, standby(1, 900, now))], now);
        assert_eq!(standings[0], Standing::StalePrimary, "restarted, and it receives nothing");
        let (_, standings, _) = run(&memory, &[leader(), by(2, 30, receives(1))], now);
        assert_eq!(standings[0], Standing::Primary);
        // Without that privilege by now: one receiver that lives for a while, and has nothing that the primary lacks.
        let mut memory = memory;
        for (millis, expected) in
            [(0, Standing::StalePrimary), (500, Standing::StalePrimary), (1000, Standing::Primary)]
        {
            let at = now + Duration::from_millis(millis);
            let feeds = Sighting::Seen(Evidence::primary(1, 900, at));
            let verdict = judge(&mut memory, &seen(&[feeds, by(2, 30, standby(1, 900, at))]), at);
            assert_eq!(verdict.standings[0], expected, "after {millis} ms");
        }
    }

    /// A delayed replica that was promoted by mistake made the true primary a stale one.
    #[test]
    fn a_node_that_is_not_promotable_is_fenced_and_fences_no_other_node() {
        let now = Instant::now();
        let mut memory = Memory::default();
        let mut see = |delayed: Sighting| {
            let sightings = [by(1, 10, Evidence::primary(1, 100, now)), delayed];
            let mut nodes = seen(&sightings);
            nodes[1].promotable = false;
            let verdict = judge(&mut memory, &nodes, now);
            (verdict.standings[0], verdict.standings[1], verdict.timeline)
        };
        let promoted = |timeline| by(2, 20, Evidence::primary(timeline, 90, now));
        let fenced = (Standing::Primary, Standing::NotPromotable, 1);
        assert_eq!(see(by(2, 20, standby(1, 90, now))), (Standing::Primary, Standing::Replica, 1));
        assert_eq!(see(promoted(2)), fenced);
        assert_eq!(see(promoted(1)), fenced, "nor does it contend on the same timeline");
        // Started as a standby again, it still has what it wrote.
        assert_eq!(see(promoted(2)), fenced);
        assert_eq!(see(by(2, 30, standby(2, 95, now))).0, Standing::Primary);
        // What it follows counts as any other node's word.
        assert_eq!(see(by(2, 40, standby(3, 95, now))).0, Standing::StalePrimary);
    }

    /// A host that was initialised anew was adopted against three nodes that agreed, because of its configured role.
    #[test]
    fn the_identity_is_that_of_the_majority_and_a_tie_is_refused() {
        let now = Instant::now();
        let other = |evidence| Sighting::Seen(Evidence { system_identifier: Some(8), ..evidence });
        let anew = || other(Evidence::primary(1, 0, now));
        let four = [anew(), primary(3, now), replica(3, now), replica(3, now)];
        let (_, standings, at) = run(&Memory::default(), &four, now);
        assert_eq!((standings[0], at), (Standing::Foreign, Some(1)));

        let mut memory = Memory::default();
        let verdict = judge(&mut memory, &seen(&[anew(), primary(3, now)]), now);
        assert_eq!((verdict.primary, verdict.mismatch), (None, Some(vec![Some(8), Some(7)])));
        // Once seen, an identifier counts while its node is away.
        let verdict = judge(&mut memory, &seen(&[anew(), Sighting::Lost]), now);
        assert_eq!((verdict.primary, verdict.standings[0]), (None, Standing::Unknown));

        // Most nodes speak against the one that was adopted.
        let (memory, _, at) =
            run(&Memory::default(), &[primary(1, now), replica(1, now), Sighting::Lost], now);
        assert_eq!(at, Some(0));
        let mut memory = memory;
        let most = [primary(1, now), other(standby(1, 0, now)), anew()];
        let verdict = judge(&mut memory, &seen(&most), now);
        assert_eq!(verdict.primary, None);
        assert_eq!(verdict.standings, [Standing::Contender, Standing::Foreign, Standing::Foreign]);
        assert!(verdict.mismatch.is_some());
        memory.forget(now);
        assert_eq!(judge(&mut memory, &seen(&most), now).primary, Some(2), "after the operator's word");
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

    /// The record was emptied with each promotion, so nothing was known of what a standby had missed before.
    #[test]
    fn what_a_standby_missed_is_known_across_a_promotion() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut memory = Memory::default();
        let standby = |position, seconds| Sighting::Seen(standby(1, position, at(seconds)));
        for second in 0..5 {
            let old = Sighting::Seen(Evidence::primary(1, 1000 + second * 100, at(second)));
            let sightings =
                [old, standby(1000 + second * 100, second), standby(1000 + second.min(1) * 100, second)];
            judge(&mut memory, &seen(&sightings), at(second));
        }
        let recovered_to = Some(Lsn::new(1400));
        let new = Sighting::Seen(Evidence { recovered_to, ..Evidence::primary(2, 1500, at(6)) });
        let cut_off = Evidence { streaming: false, receiver_pid: None, ..Evidence::standby(1, 1100, at(6)) };
        let verdict = judge(&mut memory, &seen(&[Sighting::Lost, new, Sighting::Seen(cut_off)]), at(6));
        assert_eq!(verdict.primary, Some(1));
        assert_eq!(verdict.lags[2].and_then(|lag| lag.time), Some(Duration::from_secs(5)));
    }

    fn any_sighting(now: Instant) -> impl Strategy<Value = Sighting> {
        prop_oneof![
            Just(Sighting::Unseen),
            Just(Sighting::Lost),
            (any::<bool>(), 1_u64..3, 1_u32..4, 0_i64..3).prop_map(
                move |(in_recovery, id, timeline, started_at_micros)| {
                    // The port is that of the node, later.
                    let server = Some(ServerIdentity { started_at_micros, port: 0, address: None });
                    let system_identifier = Some(id);
                    let standby = standby(timeline, 0, now);
                    Sighting::Seen(Evidence { in_recovery, system_identifier, server, ..standby })
                }
            ),
        ]
    }

    fn any_round() -> impl Strategy<Value = Vec<Sighting>> {
        prop::collection::vec(any_sighting(Instant::now()), 3).prop_map(|mut round| {
            for (port, sighting) in (1..).zip(&mut round) {
                if let Sighting::Seen(Evidence { server: Some(server), .. }) = sighting {
                    server.port = port;
                }
            }
            round
        })
    }

    /// Whether a node of the set was seen out of recovery on this timeline, and not gone for good since.
    fn may_write(rounds: &[Vec<Sighting>], node: usize, identity: u64, timeline: u32) -> bool {
        let answers = rounds.iter().rev().filter_map(|round| round[node].evidence());
        // Only what was said while the identity was known counts against it, which the first primary made so.
        answers.into_iter().next().is_some_and(|last| {
            last.system_identifier == Some(identity) && !last.in_recovery && last.timeline == timeline
        })
    }

    proptest! {
        /// A name more for a server that has one changes nothing, whichever server it leads to at the moment.
        #[test]
        fn an_alias_decides_nothing(
            rounds in prop::collection::vec((any_round(), 0_usize..3), 1..12),
        ) {
            let now = Instant::now();
            let (mut alone, mut with_alias) = (Memory::default(), Memory::default());
            let well = |port, evidence| by(port, 0, Evidence { system_identifier: Some(1), ..evidence });
            let first = [Evidence::primary(1, 0, now), standby(1, 0, now), standby(1, 0, now)];
            let first = (1..).zip(first).map(|(port, evidence)| well(port, evidence)).collect();
            for (sightings, target) in [(first, 0)].into_iter().chain(rounds) {
                let expected = judge(&mut alone, &seen(&sightings), now);
                let mut more = sightings.clone();
                more.push(sightings[target].clone());
                let verdict = judge(&mut with_alias, &seen(&more), now);
                prop_assert_eq!(verdict.primary, expected.primary);
                prop_assert_eq!(&verdict.standings[..3], &expected.standings);
                prop_assert_eq!(&verdict.contenders, &expected.contenders);
                prop_assert_eq!(verdict.timeline, expected.timeline);
                let alias = if sightings[target].evidence().is_some() { Standing::Alias } else { Standing::Unknown };
                prop_assert_eq!(verdict.standings[3], alias);
            }
        }

        /// Whatever is seen in whatever order: at most one primary, never one in recovery, of one identity for good,
        /// not against the majority, on the highest timeline that is not proven to be gone, and never while another node
        /// may go on writing there out of sight.
        #[test]
        fn there_is_never_a_wrong_primary(
            rounds in prop::collection::vec(any_round(), 1..12),
            never in 0_usize..6,
        ) {
            let mut now = Instant::now();
            let mut memory = Memory::default();
            let mut identity = None;
            for (i, sightings) in rounds.iter().enumerate() {
                now += Duration::from_millis(500);
                let before = memory.clone();
                let mut nodes = seen(sightings);
                if let Some(never) = nodes.get_mut(never) {
                    never.promotable = false;
                }
                let verdict = judge(&mut memory, &nodes, now);
                if memory.highest_timeline < before.highest_timeline {
                    prop_assert!(verdict.lost.is_some() || before.system_identifier.is_none());
                }
                let primaries = verdict.standings.iter().filter(|s| **s == Standing::Primary).count();
                prop_assert_eq!(primaries, usize::from(verdict.primary.is_some()));
                let Some(primary) = verdict.primary else { continue };
                let evidence = sightings[primary].evidence().expect("a primary was seen");
                prop_assert!(!evidence.in_recovery && primary != never);
                prop_assert_eq!(evidence.timeline, verdict.timeline);
                prop_assert_eq!(*identity.get_or_insert(evidence.system_identifier), evidence.system_identifier);
                prop_assert!(verdict.contenders.is_empty() && verdict.mismatch.is_none());
                let last = |node: usize| rounds[..=i].iter().rev().find_map(|round| round[node].evidence());
                let others = (0..3).filter(|node| *node != primary);
                let against =
                    others.clone().filter_map(last).filter(|e| e.system_identifier != evidence.system_identifier);
                prop_assert!(against.count() < 2, "two of three belong to another cluster");
                let id = evidence.system_identifier.expect("all of these show one");
                for other in others.filter(|other| *other != never) {
                    prop_assert!(!may_write(&rounds[..=i], other, id, evidence.timeline), "node {other} writes");
                    // A process that showed a higher timeline still has it.
                    let higher = last(other).is_some_and(|last| {
                        last.system_identifier == Some(id) && last.timeline > evidence.timeline
                    });
                    prop_assert!(!higher, "node {other} has a higher timeline");
                }
            }
        }
    }
}
