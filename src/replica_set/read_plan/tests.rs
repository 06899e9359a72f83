use super::*;

fn candidate(node: usize, tier: Tier) -> Candidate {
    let rank = Rank { last: false, tier };
    Candidate { node, rank, load: 0, overdue: 0, latency: None, weight: 1 }
}

/// A candidate that comes after all others.
fn last(node: usize, tier: Tier) -> Candidate {
    Candidate { rank: Rank { last: true, tier }, ..candidate(node, tier) }
}

/// Begins the plan of a read in which the draw between equals is always the same.
fn plan(candidates: &[Candidate]) -> ReadPlan {
    let mut plan = ReadPlan::new(Rng::with_seed(1));
    plan.begin_round(candidates.to_vec());
    plan
}

fn ask(plan: &mut ReadPlan) -> Ask {
    match plan.next() {
        Step::Ask(ask) => ask,
        other => panic!("no node is asked, but {other:?}"),
    }
}

fn failed(node: &str) -> Unserved {
    Unserved::Failed(NodeFailure { node: node.to_owned(), reason: "it failed".to_owned(), error: None })
}

/// Asks all nodes of a round, which all answer the same.
fn nodes_asked(plan: &mut ReadPlan, mut outcome: impl FnMut(Ask) -> Unserved) -> Vec<usize> {
    let mut asked = Vec::new();
    while let Step::Ask(ask) = plan.next() {
        asked.push(ask.node);
        plan.on(ask, outcome(ask));
    }
    asked
}

const PRIMARY: usize = 0;

#[test]
fn nodes_are_asked_from_the_best_tier_to_the_worst() {
    let mut plan = plan(&[
        candidate(4, Tier::Suspected),
        candidate(1, Tier::Near),
        candidate(2, Tier::Fit),
        candidate(PRIMARY, Tier::Fallback),
        candidate(3, Tier::Recovering),
        last(5, Tier::Near),
    ]);
    assert_eq!(nodes_asked(&mut plan, |_| failed("a")), [1, 2, PRIMARY, 3, 4, 5]);
}

#[test]
fn equals_are_drawn_by_the_given_generator() {
    let equals: Vec<_> = (0..4).map(|node| candidate(node, Tier::Fit)).collect();
    let order = |seed| {
        let mut plan = ReadPlan::new(Rng::with_seed(seed));
        plan.begin_round(equals.clone());
        nodes_asked(&mut plan, |_| failed("a"))
    };
    assert_eq!(order(7), order(7));
    assert!((0..20).any(|seed| order(seed) != order(7)));
}

#[test]
fn only_the_last_node_is_waited_for_until_the_deadline() {
    let mut plan = plan(&[candidate(1, Tier::Near), candidate(2, Tier::Fit)]);
    let first = ask(&mut plan);
    assert_eq!((first.node, first.is_last, first.timeout), (1, false, Some(NODE_TIMEOUT)));
    plan.on(first, failed("a"));
    let second = ask(&mut plan);
    assert_eq!((second.node, second.is_last, second.timeout), (2, true, None));
}

#[test]
fn once_a_permit_was_taken_no_node_is_waited_for_long() {
    let mut plan = plan(&[candidate(PRIMARY, Tier::Fallback), candidate(1, Tier::Suspected)]);
    let primary = ask(&mut plan);
    assert!(primary.needs_permit());
    plan.on(primary, Unserved::NoPermit { limit: 8 });
    let replica = ask(&mut plan);
    assert_eq!((replica.node, replica.is_last, replica.timeout), (1, true, Some(PAUSE_FOR_PERMIT)));
    assert!(!replica.needs_permit());
    plan.on(replica, failed("b"));
    assert_eq!(plan.next(), Step::Pause(PAUSE_FOR_PERMIT, Shortage::NoPermit { limit: 8 }));
}

#[test]
fn a_round_without_candidates_is_a_pause() {
    assert_eq!(plan(&[]).next(), Step::Pause(PAUSE, Shortage::NoNode));
}

#[test]
fn a_node_that_failed_is_asked_again_in_the_next_round() {
    let candidates = [candidate(1, Tier::Fit)];
    let mut plan = plan(&candidates);
    assert_eq!(nodes_asked(&mut plan, |_| failed("a")), [1]);
    assert_eq!(plan.next(), Step::Pause(PAUSE, Shortage::NoNode));
    plan.begin_round(candidates.to_vec());
    assert_eq!(nodes_asked(&mut plan, |_| failed("a")), [1]);
}

#[test]
fn the_last_failure_of_each_node_is_kept_through_all_rounds() {
    let mut plan = plan(&[candidate(1, Tier::Near), candidate(2, Tier::Fit)]);
    nodes_asked(&mut plan, |ask| failed(["", "a", "b"][ask.node]));
    plan.begin_round(vec![candidate(1, Tier::Fit)]);
    nodes_asked(&mut plan, |_| failed("a"));
    let failures: Vec<_> = plan.failures().iter().map(|failure| &*failure.node).collect();
    assert_eq!(failures, ["b", "a"]);
}

#[test]
fn an_exhausted_replica_takes_the_fallback_out_of_the_round() {
    let mut plan = plan(&[candidate(1, Tier::Fit), candidate(PRIMARY, Tier::Fallback)]);
    let replica = ask(&mut plan);
    plan.on(replica, Unserved::Exhausted);
    assert_eq!(plan.next(), Step::Pause(PAUSE, Shortage::Exhausted { node: 1 }));
}

#[test]
fn an_exhausted_replica_leaves_other_replicas_and_nodes_that_were_put_last() {
    let mut plan = plan(&[
        candidate(1, Tier::Fit),
        candidate(2, Tier::Suspected),
        candidate(PRIMARY, Tier::Fallback),
        last(3, Tier::Fit),
    ]);
    assert_eq!(nodes_asked(&mut plan, |_| Unserved::Exhausted), [1, 2, 3]);
}

#[test]
fn after_an_exhausted_replica_the_next_round_asks_fit_replicas_only() {
    let candidates =
        [candidate(1, Tier::Fit), candidate(PRIMARY, Tier::Preferred), candidate(PRIMARY, Tier::Fallback)];
    let mut plan = plan(&candidates);
    assert_eq!(nodes_asked(&mut plan, |_| Unserved::Exhausted), [PRIMARY, 1]);
    plan.begin_round(candidates.to_vec());
    let replica = ask(&mut plan);
    assert_eq!((replica.node, replica.is_last), (1, true), "it is waited for until the deadline");
    // No replica is fit any more, so the primary serves.
    plan.on(replica, Unserved::Exhausted);
    assert_eq!(plan.next(), Step::Pause(PAUSE, Shortage::Exhausted { node: 1 }));
    plan.begin_round(vec![candidate(1, Tier::Suspected), candidate(PRIMARY, Tier::Fallback)]);
    assert_eq!(nodes_asked(&mut plan, |_| failed("a")), [PRIMARY, 1]);
}

#[test]
fn a_round_without_an_exhausted_node_ends_the_stay_at_the_replicas() {
    let candidates = [candidate(1, Tier::Fit), candidate(PRIMARY, Tier::Fallback)];
    let mut plan = plan(&candidates);
    nodes_asked(&mut plan, |_| Unserved::Exhausted);
    assert_eq!(plan.next(), Step::Pause(PAUSE, Shortage::Exhausted { node: 1 }));
    plan.begin_round(candidates.to_vec());
    assert_eq!(nodes_asked(&mut plan, |_| failed("a")), [1]);
    plan.begin_round(candidates.to_vec());
    assert_eq!(nodes_asked(&mut plan, |_| failed("a")), [1, PRIMARY]);
}

/// A preferred primary that is busy is a matter of course: a replica serves, or the primary in its own tier.
#[test]
fn a_preferred_primary_without_a_slot_changes_nothing_in_the_rest() {
    for outcome in [|| Unserved::Exhausted, || Unserved::NoPermit { limit: 8 }] {
        let mut plan = plan(&[candidate(PRIMARY, Tier::Fallback), candidate(PRIMARY, Tier::Preferred)]);
        let preferred = ask(&mut plan);
        assert_eq!((preferred.tier, preferred.is_last), (Tier::Preferred, false));
        assert!(preferred.needs_permit());
        plan.on(preferred, outcome());
        let again = ask(&mut plan);
        assert_eq!((again.tier, again.is_last, again.timeout), (Tier::Fallback, true, None));
        plan.on(again, failed("a"));
        assert_eq!(plan.next(), Step::Pause(PAUSE, Shortage::NoNode));
    }
}

#[test]
fn an_exhausted_pool_explains_more_than_a_missing_permit() {
    let mut plan = plan(&[candidate(PRIMARY, Tier::Fallback), candidate(1, Tier::Recovering)]);
    nodes_asked(&mut plan, |ask| match ask.node {
        PRIMARY => Unserved::NoPermit { limit: 8 },
        _ => Unserved::Exhausted,
    });
    assert_eq!(plan.next(), Step::Pause(PAUSE_FOR_PERMIT, Shortage::Exhausted { node: 1 }));
}

#[test]
fn a_retired_pool_ends_the_round_at_once() {
    let candidates = [candidate(1, Tier::Near), candidate(2, Tier::Fit)];
    let mut plan = plan(&candidates);
    let retired = ask(&mut plan);
    plan.on(retired, Unserved::Retired);
    assert_eq!(plan.next(), Step::StartOver);
    plan.begin_round(candidates.to_vec());
    assert_eq!(nodes_asked(&mut plan, |_| failed("a")), [1, 2]);
}

#[test]
fn the_primary_serves_only_after_one_wait_for_the_replicas_that_are_behind() {
    let round = [candidate(1, Tier::Behind), candidate(2, Tier::Behind), candidate(PRIMARY, Tier::Fallback)];
    let mut plan = plan(&round);
    let mut asked = nodes_asked(&mut plan, |_| Unserved::Behind);
    asked.sort_unstable();
    assert_eq!(asked, [1, 2]);
    assert_eq!(plan.next(), Step::AwaitPosition);
    assert_eq!(plan.behind().len(), 2);
    plan.on_waited();
    assert_eq!(ask(&mut plan).node, PRIMARY);
    // The second round asks them again, and does not wait again.
    plan.begin_round(round.to_vec());
    assert_eq!(nodes_asked(&mut plan, |_| Unserved::Behind).len(), 3);
}

#[test]
fn a_read_that_the_primary_must_not_serve_waits_for_its_replicas_and_says_so() {
    let mut plan = plan(&[candidate(1, Tier::Behind)]);
    assert_eq!(nodes_asked(&mut plan, |_| Unserved::Behind), [1]);
    assert_eq!(plan.next(), Step::AwaitPosition);
    plan.on_waited();
    assert_eq!(plan.next(), Step::Pause(PAUSE_FOR_PERMIT, Shortage::Behind));
}

#[test]
fn a_read_without_a_token_never_waits_for_a_position() {
    let mut plan = plan(&[candidate(1, Tier::Fit), candidate(PRIMARY, Tier::Fallback)]);
    assert_eq!(nodes_asked(&mut plan, |_| failed("a")), [1, PRIMARY]);
    assert!(matches!(plan.next(), Step::Pause(..)));
}
