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
    assert_eq!(judged(&mut memory, [leader(), rebuilt(2), Sighting::Lost]), (None, None), "one still has it");
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
    let receives = |timeline| Evidence { received_timeline: Some(timeline), ..standby(timeline, 900, now) };
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
    let (memory, _, at) = run(&Memory::default(), &[primary(1, now), replica(1, now), Sighting::Lost], now);
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

/// Returns `true` if a node of the set was seen out of recovery on this timeline, and not gone for good since.
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
