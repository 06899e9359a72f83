use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::lsn::Lsn;
use crate::stats::ServerIdentity;

pub(in crate::topology) fn standby(timeline: u32, position: u64, at: Instant) -> Observation {
    Observation::standby(timeline, position, at)
}

fn primary(timeline: u32, at: Instant) -> LastSeen {
    LastSeen::Observed(Observation { in_recovery: false, ..standby(timeline, 0, at) })
}

fn replica(timeline: u32, at: Instant) -> LastSeen {
    LastSeen::Observed(standby(timeline, 0, at))
}

pub(in crate::topology) fn seen(all_last_seen: &[LastSeen]) -> Vec<Seen<'_>> {
    let node = |(i, last_seen)| {
        let node = Arc::from(format!("node-{i}:5432"));
        Seen { node, last_seen, promotable: true }
    };
    all_last_seen.iter().enumerate().map(node).collect()
}

fn run(
    history: &RoleHistory,
    all_last_seen: &[LastSeen],
    now: Instant,
) -> (RoleHistory, Vec<NodeRole>, Option<usize>) {
    let mut history = history.clone();
    let roles = resolve_roles(&mut history, &seen(all_last_seen), now);
    (history, roles.by_node, roles.primary)
}

#[test]
fn roles_are_discovered_whatever_the_configuration_says() {
    let now = Instant::now();
    let (_, by_node, primary) =
        run(&RoleHistory::default(), &[replica(1, now), primary(1, now), LastSeen::Down], now);
    assert_eq!(by_node, [NodeRole::Replica, NodeRole::Primary, NodeRole::Unknown]);
    assert_eq!(primary, Some(1));
}

#[test]
fn an_old_primary_that_comes_back_is_fenced() {
    let now = Instant::now();
    let before = [primary(1, now), replica(1, now), replica(1, now)];
    let (history, ..) = run(&RoleHistory::default(), &before, now);
    let promoted = [LastSeen::Down, primary(2, now), replica(2, now)];
    let (history, _, at) = run(&history, &promoted, now);
    assert_eq!(at, Some(1));
    // Even if the new primary is gone: writes on the old one would be lost.
    let (_, by_node, at) = run(&history, &[primary(1, now), LastSeen::Down, LastSeen::Down], now);
    assert_eq!((by_node[0], at), (NodeRole::StalePrimary, None));
}

#[test]
fn a_standby_on_a_higher_timeline_makes_the_old_primary_stale() {
    let now = Instant::now();
    let (_, by_node, at) =
        run(&RoleHistory::default(), &[primary(1, now), LastSeen::Down, replica(2, now)], now);
    assert_eq!((by_node[0], at), (NodeRole::StalePrimary, None));
}

/// Returns an observation of the process with this port and start time.
fn by(server: u16, started: i64, observation: Observation) -> LastSeen {
    let server = ServerIdentity { started_at_micros: started, port: server, address: None };
    LastSeen::Observed(Observation { server: Some(server), ..observation })
}

/// The timeline fell, and the log did not name it.
#[test]
fn a_history_that_is_lost_before_a_primary_was_seen_is_reported() {
    let now = Instant::now();
    let standbys =
        |timeline, started| [by(1, 10, standby(1, 0, now)), by(2, started, standby(timeline, 0, now))];
    let (mut history, ..) = run(&RoleHistory::default(), &standbys(2, 20), now);
    let restarted = standbys(1, 21);
    let roles = resolve_roles(&mut history, &seen(&restarted), now);
    assert_eq!((roles.timeline, roles.lost.map(|lost| lost.timeline)), (1, Some(2)));
}

/// As soon as one of them was out of sight, the other one silently became the primary.
#[test]
fn two_primaries_on_one_timeline_conflict_until_one_of_them_is_rebuilt_or_removed() {
    let now = Instant::now();
    let well = [primary(1, now), replica(1, now), replica(1, now)];
    let (history, ..) = run(&RoleHistory::default(), &well, now);
    let both = [LastSeen::Down, primary(2, now), primary(2, now)];
    let (history, by_node, at) = run(&history, &both, now);
    assert_eq!(by_node[1..], [NodeRole::Conflicting; 2]);
    assert_eq!(at, None);
    let (history, by_node, at) = run(&history, &[LastSeen::Down, primary(2, now), LastSeen::Down], now);
    assert_eq!((by_node[1], at), (NodeRole::Conflicting, None), "one that is out of sight still counts");
    let foreign =
        LastSeen::Observed(Observation { system_identifier: Some(8), ..Observation::primary(1, 0, now) });
    for gone in [replica(2, now), primary(1, now), foreign] {
        let (_, by_node, at) = run(&history, &[LastSeen::Down, primary(2, now), gone.clone()], now);
        assert_eq!((by_node[1], at), (NodeRole::Primary, Some(1)), "{gone:?}");
    }
    let (_, by_node, at) = run(&history, &[primary(3, now), primary(2, now), primary(2, now)], now);
    assert_eq!(by_node[1..], [NodeRole::StalePrimary; 2], "a higher timeline was begun");
    assert_eq!(at, Some(0));
    let mut left = history;
    let roles = resolve_roles(&mut left, &seen(&[LastSeen::Down, primary(2, now)]), now);
    assert_eq!(roles.primary, Some(1), "it left the configuration");
}

/// The two answered one after the other, and were never seen together.
#[test]
fn a_second_primary_on_one_timeline_is_a_conflict_though_the_first_is_out_of_sight() {
    let now = Instant::now();
    let first = [LastSeen::Down, primary(2, now), replica(1, now)];
    let (history, _, at) = run(&RoleHistory::default(), &first, now);
    assert_eq!(at, Some(1));
    let mut history = history;
    let then = [LastSeen::Down, LastSeen::Down, primary(2, now)];
    let roles = resolve_roles(&mut history, &seen(&then), now);
    assert_eq!((roles.conflicting.as_slice(), roles.primary), (&[1, 2][..], None));
    // The order of the nodes in the configuration changes, and nothing is forgotten.
    let mut turned = seen(&then);
    turned.reverse();
    let roles = resolve_roles(&mut history, &turned, now);
    assert_eq!((roles.conflicting.as_slice(), roles.primary), (&[0, 1][..], None));
    assert_eq!(history.recoveries.iter().count(), 2, "both came to write");
}

/// The set never forgot it, and the one true primary stayed fenced until the program was restarted.
#[test]
fn the_highest_timeline_falls_when_every_node_that_showed_it_shows_a_lower_one() {
    let now = Instant::now();
    let leader = || by(1, 10, Observation::primary(7, 900, now));
    let promoted = Observation { recovered_to: Some(Lsn::new(850)), ..Observation::primary(8, 950, now) };
    let both = [leader(), by(2, 20, promoted.clone()), by(3, 30, standby(8, 950, now))];
    let (history, by_node, _) = run(&RoleHistory::default(), &both, now);
    assert_eq!(by_node[0], NodeRole::StalePrimary);
    let resolve = |history: &mut RoleHistory, all_last_seen: [LastSeen; 3]| {
        let roles = resolve_roles(history, &seen(&all_last_seen), now);
        (roles.primary, roles.lost)
    };
    let rebuilt = |server| by(server, 100, standby(7, 900, now));
    let mut history = history;
    assert_eq!(resolve(&mut history, [leader(), LastSeen::Down, LastSeen::Down]), (None, None));
    assert_eq!(
        resolve(&mut history, [leader(), rebuilt(2), LastSeen::Down]),
        (None, None),
        "one still has it"
    );
    // The same process with a lower timeline: its receiver is gone, and the control file is late.
    let late = by(3, 30, standby(7, 950, now));
    assert_eq!(resolve(&mut history, [leader(), rebuilt(2), late]), (None, None));
    let (primary, lost) = resolve(&mut history, [leader(), rebuilt(2), rebuilt(3)]);
    assert_eq!(primary, Some(0));
    let expected = LostHistory { timeline: 8, fork: Some(Lsn::new(850)), position: Lsn::new(950) };
    assert_eq!(lost, Some(expected), "what was lost is told, once");
    assert_eq!(resolve(&mut history, [leader(), rebuilt(2), rebuilt(3)]), (Some(0), None));
    assert_eq!(resolve(&mut history, [leader(), by(2, 100, promoted), rebuilt(3)]).0, Some(1), "a new one");
}

#[test]
fn a_node_that_left_the_configuration_proves_nothing() {
    let now = Instant::now();
    let (history, ..) = run(&RoleHistory::default(), &[primary(1, now), primary(2, now)], now);
    let (history, by_node, at) = run(&history, &[primary(1, now)], now);
    assert_eq!((by_node[0], at), (NodeRole::StalePrimary, None));
    let mut history = history;
    history.forget(now);
    let (_, _, at) = run(&history, &[primary(1, now)], now);
    assert_eq!(at, Some(0), "the operator decides");
}

/// An address that now leads to another server proves nothing about the earlier one.
#[test]
fn a_floating_address_that_moves_back_to_an_old_primary_proves_nothing() {
    let now = Instant::now();
    let old = || by(1, 10, Observation::primary(1, 900, now));
    let (history, ..) = run(&RoleHistory::default(), &[by(2, 20, Observation::primary(2, 900, now))], now);
    let (_, by_node, at) = run(&history, &[old()], now);
    assert_eq!((by_node[0], at), (NodeRole::StalePrimary, None));
}

/// With `pg_monitor`, a WAL receiver shows its timeline only while it runs.
#[test]
fn a_standby_without_a_receiver_does_not_prove_a_timeline_lost() {
    let now = Instant::now();
    let leader = || LastSeen::Observed(Observation::primary(1, 900, now));
    let receives =
        |timeline| Observation { received_timeline: Some(timeline), ..standby(timeline, 900, now) };
    let (history, ..) = run(&RoleHistory::default(), &[leader(), by(2, 20, receives(2))], now);
    let (history, by_node, _) = run(&history, &[leader(), by(2, 30, standby(1, 900, now))], now);
    assert_eq!(by_node[0], NodeRole::StalePrimary, "restarted, and it receives nothing");
    let (_, by_node, _) = run(&history, &[leader(), by(2, 30, receives(1))], now);
    assert_eq!(by_node[0], NodeRole::Primary);
    // Without that privilege: one receiver that runs for a while, and has nothing that the primary lacks.
    let mut history = history;
    for (millis, expected) in
        [(0, NodeRole::StalePrimary), (500, NodeRole::StalePrimary), (1000, NodeRole::Primary)]
    {
        let at = now + Duration::from_millis(millis);
        let feeds = LastSeen::Observed(Observation::primary(1, 900, at));
        let roles = resolve_roles(&mut history, &seen(&[feeds, by(2, 30, standby(1, 900, at))]), at);
        assert_eq!(roles.by_node[0], expected, "after {millis} ms");
    }
}

/// A delayed replica, promoted by mistake, made the true primary a stale one.
#[test]
fn a_node_that_is_not_promotable_is_fenced_and_fences_no_other_node() {
    let now = Instant::now();
    let mut history = RoleHistory::default();
    let mut see = |delayed: LastSeen| {
        let all_last_seen = [by(1, 10, Observation::primary(1, 100, now)), delayed];
        let mut nodes = seen(&all_last_seen);
        nodes[1].promotable = false;
        let roles = resolve_roles(&mut history, &nodes, now);
        (roles.by_node[0], roles.by_node[1], roles.timeline)
    };
    let promoted = |timeline| by(2, 20, Observation::primary(timeline, 90, now));
    let fenced = (NodeRole::Primary, NodeRole::NotPromotable, 1);
    assert_eq!(see(by(2, 20, standby(1, 90, now))), (NodeRole::Primary, NodeRole::Replica, 1));
    assert_eq!(see(promoted(2)), fenced);
    assert_eq!(see(promoted(1)), fenced, "nor does it contend on the same timeline");
    // Started as a standby again, it still has its own writes.
    assert_eq!(see(promoted(2)), fenced);
    assert_eq!(see(by(2, 30, standby(2, 95, now))).0, NodeRole::Primary);
    // The timeline that it follows counts as any other node's.
    assert_eq!(see(by(2, 40, standby(3, 95, now))).0, NodeRole::StalePrimary);
}

/// Its answer was recorded as a promotable node's once the set had an identity, and fenced the true primary for
/// good.
#[test]
fn a_node_that_is_not_promotable_fences_no_other_node_by_what_it_showed_first() {
    let now = Instant::now();
    let mut history = RoleHistory::default();
    let mut see = |others: [LastSeen; 2]| {
        let [first, last] = others;
        let all_last_seen = [first, by(2, 20, Observation::primary(2, 90, now)), last];
        let mut nodes = seen(&all_last_seen);
        nodes[1].promotable = false;
        resolve_roles(&mut history, &nodes, now).by_node
    };
    assert_eq!(see([LastSeen::Never, LastSeen::Never])[0], NodeRole::Unknown);
    let by_node = see([by(1, 10, Observation::primary(1, 100, now)), by(3, 30, standby(1, 95, now))]);
    assert_eq!(by_node, [NodeRole::Primary, NodeRole::NotPromotable, NodeRole::Replica]);
}

/// A host that ran `initdb` again was adopted against three agreeing nodes, because of its configured role.
#[test]
fn the_identity_is_that_of_the_majority_and_a_tie_is_refused() {
    let now = Instant::now();
    let other = |observation| LastSeen::Observed(Observation { system_identifier: Some(8), ..observation });
    let of_new_cluster = || other(Observation::primary(1, 0, now));
    let four = [of_new_cluster(), primary(3, now), replica(3, now), replica(3, now)];
    let (_, by_node, at) = run(&RoleHistory::default(), &four, now);
    assert_eq!((by_node[0], at), (NodeRole::Foreign, Some(1)));

    let mut history = RoleHistory::default();
    let roles = resolve_roles(&mut history, &seen(&[of_new_cluster(), primary(3, now)]), now);
    assert_eq!((roles.primary, roles.mismatch), (None, Some(vec![Some(8), Some(7)])));
    // Once seen, an identifier counts while its node is away.
    let roles = resolve_roles(&mut history, &seen(&[of_new_cluster(), LastSeen::Down]), now);
    assert_eq!((roles.primary, roles.by_node[0]), (None, NodeRole::Unknown));

    // Most nodes contradict the adopted identifier.
    let (history, _, at) =
        run(&RoleHistory::default(), &[primary(1, now), replica(1, now), LastSeen::Down], now);
    assert_eq!(at, Some(0));
    let mut history = history;
    let most = [primary(1, now), other(standby(1, 0, now)), of_new_cluster()];
    let roles = resolve_roles(&mut history, &seen(&most), now);
    assert_eq!(roles.primary, None);
    assert_eq!(roles.by_node, [NodeRole::Conflicting, NodeRole::Foreign, NodeRole::Foreign]);
    assert!(roles.mismatch.is_some());
    history.forget(now);
    assert_eq!(resolve_roles(&mut history, &seen(&most), now).primary, Some(2), "after the operator's word");
}

#[test]
fn a_node_of_another_cluster_is_foreign_and_raises_no_timeline() {
    let now = Instant::now();
    let other = Observation { system_identifier: Some(8), in_recovery: false, ..standby(9, 0, now) };
    let all_last_seen = [primary(1, now), LastSeen::Observed(other), replica(1, now)];
    let (history, by_node, at) = run(&RoleHistory::default(), &all_last_seen, now);
    assert_eq!(by_node, [NodeRole::Primary, NodeRole::Foreign, NodeRole::Replica]);
    assert_eq!((at, history.highest_timeline), (Some(0), 1));
}

#[test]
fn the_first_node_that_answers_does_not_decide_the_identity() {
    let now = Instant::now();
    let other = Observation { system_identifier: Some(8), ..standby(1, 0, now) };
    let first = [LastSeen::Never, LastSeen::Observed(other.clone()), LastSeen::Never];
    let (history, by_node, _) = run(&RoleHistory::default(), &first, now);
    assert_eq!(by_node[1], NodeRole::Unknown);
    let then = [primary(1, now), LastSeen::Observed(other), replica(1, now)];
    let (_, by_node, _) = run(&history, &then, now);
    assert_eq!(by_node, [NodeRole::Primary, NodeRole::Foreign, NodeRole::Replica]);
}

/// A probe that could not read the identity marked its node down.
#[test]
fn a_node_without_an_identity_takes_no_writes_and_serves_reads_only_if_no_node_has_one() {
    let now = Instant::now();
    let without = |observation| LastSeen::Observed(Observation { system_identifier: None, ..observation });
    let alone =
        [without(Observation::primary(1, 0, now)), without(standby(1, 0, now)), without(standby(1, 0, now))];
    let (_, by_node, at) = run(&RoleHistory::default(), &alone, now);
    assert_eq!(by_node, [NodeRole::Unknown, NodeRole::Replica, NodeRole::Replica]);
    assert_eq!(at, None);
    let one = [primary(1, now), without(standby(1, 0, now)), replica(1, now)];
    let (_, by_node, at) = run(&RoleHistory::default(), &one, now);
    assert_eq!(by_node, [NodeRole::Primary, NodeRole::Unknown, NodeRole::Replica]);
    assert_eq!(at, Some(0));
}

/// Each promotion emptied the record, so the lag before it was unknown.
#[test]
fn what_a_standby_missed_is_known_across_a_promotion() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut history = RoleHistory::default();
    let standby = |position, seconds| LastSeen::Observed(standby(1, position, at(seconds)));
    for second in 0..5 {
        let old = LastSeen::Observed(Observation::primary(1, 1000 + second * 100, at(second)));
        let all_last_seen =
            [old, standby(1000 + second * 100, second), standby(1000 + second.min(1) * 100, second)];
        resolve_roles(&mut history, &seen(&all_last_seen), at(second));
    }
    let recovered_to = Some(Lsn::new(1400));
    let new = LastSeen::Observed(Observation { recovered_to, ..Observation::primary(2, 1500, at(6)) });
    let cut_off =
        Observation { streaming: false, receiver_pid: None, ..Observation::standby(1, 1100, at(6)) };
    let roles =
        resolve_roles(&mut history, &seen(&[LastSeen::Down, new, LastSeen::Observed(cut_off)]), at(6));
    assert_eq!(roles.primary, Some(1));
    assert_eq!(roles.lags[2].and_then(|lag| lag.time), Some(Duration::from_secs(5)));
}

fn any_last_seen(now: Instant) -> impl Strategy<Value = LastSeen> {
    prop_oneof![
        Just(LastSeen::Never),
        Just(LastSeen::Down),
        (any::<bool>(), 1_u64..3, 1_u32..4, 0_i64..3).prop_map(
            move |(in_recovery, id, timeline, started_at_micros)| {
                // The port stands for the node, and is set later.
                let server = Some(ServerIdentity { started_at_micros, port: 0, address: None });
                let system_identifier = Some(id);
                let standby = standby(timeline, 0, now);
                LastSeen::Observed(Observation { in_recovery, system_identifier, server, ..standby })
            }
        ),
    ]
}

fn any_round() -> impl Strategy<Value = Vec<LastSeen>> {
    prop::collection::vec(any_last_seen(Instant::now()), 3).prop_map(|mut round| {
        for (port, last_seen) in (1..).zip(&mut round) {
            if let LastSeen::Observed(Observation { server: Some(server), .. }) = last_seen {
                server.port = port;
            }
        }
        round
    })
}

/// Returns `true` if a node may still be writing on this timeline.
///
/// A probe saw it there out of recovery, and it is not gone for good since.
fn may_write(rounds: &[Vec<LastSeen>], node: usize, identity: u64, timeline: u32) -> bool {
    let answers = rounds.iter().rev().filter_map(|round| round[node].observation());
    // Only an answer given while the identity was known counts against it; the first primary fixed the identity.
    answers.into_iter().next().is_some_and(|last| {
        last.system_identifier == Some(identity) && !last.in_recovery && last.timeline == timeline
    })
}

proptest! {
    /// One more name for a server changes nothing, whichever server it leads to at the moment.
    #[test]
    fn an_alias_decides_nothing(
        rounds in prop::collection::vec((any_round(), 0_usize..3), 1..12),
    ) {
        let now = Instant::now();
        let (mut alone, mut with_alias) = (RoleHistory::default(), RoleHistory::default());
        let well = |port, observation| by(port, 0, Observation { system_identifier: Some(1), ..observation });
        let first = [Observation::primary(1, 0, now), standby(1, 0, now), standby(1, 0, now)];
        let first = (1..).zip(first).map(|(port, observation)| well(port, observation)).collect();
        for (all_last_seen, target) in [(first, 0)].into_iter().chain(rounds) {
            let expected = resolve_roles(&mut alone, &seen(&all_last_seen), now);
            let mut more = all_last_seen.clone();
            more.push(all_last_seen[target].clone());
            let roles = resolve_roles(&mut with_alias, &seen(&more), now);
            prop_assert_eq!(roles.primary, expected.primary);
            prop_assert_eq!(&roles.by_node[..3], &expected.by_node);
            prop_assert_eq!(&roles.conflicting, &expected.conflicting);
            prop_assert_eq!(roles.timeline, expected.timeline);
            let alias = if all_last_seen[target].observation().is_some() { NodeRole::Alias } else { NodeRole::Unknown };
            prop_assert_eq!(roles.by_node[3], alias);
        }
    }

    /// There is at most one primary, whatever is observed, in whatever order.
    ///
    /// It is never in recovery, keeps one identity for good, and does not contradict the majority. It is on the
    /// highest timeline that is not proven to be gone. And no other node may go on writing there out of sight.
    #[test]
    fn there_is_never_a_wrong_primary(
        rounds in prop::collection::vec(any_round(), 1..12),
        never in 0_usize..6,
    ) {
        let mut now = Instant::now();
        let mut history = RoleHistory::default();
        let mut identity = None;
        for (i, all_last_seen) in rounds.iter().enumerate() {
            now += Duration::from_millis(500);
            let before = history.clone();
            let mut nodes = seen(all_last_seen);
            if let Some(never) = nodes.get_mut(never) {
                never.promotable = false;
            }
            let roles = resolve_roles(&mut history, &nodes, now);
            if history.highest_timeline < before.highest_timeline {
                prop_assert!(roles.lost.is_some() || before.system_identifier.is_none());
            }
            let primaries = roles.by_node.iter().filter(|s| **s == NodeRole::Primary).count();
            prop_assert_eq!(primaries, usize::from(roles.primary.is_some()));
            let Some(primary) = roles.primary else { continue };
            let observation = all_last_seen[primary].observation().expect("a primary was seen");
            prop_assert!(!observation.in_recovery && primary != never);
            prop_assert_eq!(observation.timeline, roles.timeline);
            prop_assert_eq!(*identity.get_or_insert(observation.system_identifier), observation.system_identifier);
            prop_assert!(roles.conflicting.is_empty() && roles.mismatch.is_none());
            let last = |node: usize| rounds[..=i].iter().rev().find_map(|round| round[node].observation());
            let others = (0..3).filter(|node| *node != primary);
            let against =
                others.clone().filter_map(last).filter(|e| e.system_identifier != observation.system_identifier);
            prop_assert!(against.count() < 2, "two of three belong to another cluster");
            let id = observation.system_identifier.expect("all of these show one");
            for other in others.filter(|other| *other != never) {
                prop_assert!(!may_write(&rounds[..=i], other, id, observation.timeline), "node {other} writes");
                // A process that showed a higher timeline still has it.
                let higher = last(other).is_some_and(|last| {
                    last.system_identifier == Some(id) && last.timeline > observation.timeline
                });
                prop_assert!(!higher, "node {other} has a higher timeline");
            }
        }
    }
}
