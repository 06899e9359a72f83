//! The fate of a standby after a promotion, case by case.

use super::*;
use crate::stats::ServerIdentity;

/// An old primary (0), a standby (1) and the promoted node (2).
///
/// They are observed every 400 ms.
struct Set {
    lineages: Lineages,
    now: Instant,
}

const NEW: usize = 2;
const FORK: u64 = 1000;

fn down() -> LastSeen {
    LastSeen::Down
}

impl Set {
    fn new() -> Self {
        Self { lineages: Lineages::default(), now: Instant::now() }
    }

    /// Observes the standby, the old primary and the new one, in this order.
    fn see(&mut self, old: Option<u64>, standby: Observation, new: Observation) -> Lineage {
        let start = self.now;
        let at = move |millis, observation: Observation| {
            let at = start + Duration::from_millis(millis);
            LastSeen::Observed(Observation { at, answered_at: at + Duration::from_millis(1), ..observation })
        };
        let old = old.map_or_else(down, |position| at(20, Observation::primary(1, position, start)));
        let promoted = !new.in_recovery;
        let role = match (&old, promoted) {
            (LastSeen::Down, _) => NodeRole::Unknown,
            (_, false) => NodeRole::Primary,
            (_, true) => NodeRole::StalePrimary,
        };
        let by_node = [role, NodeRole::Replica, if promoted { NodeRole::Primary } else { NodeRole::Replica }];
        let all_last_seen = [old, at(0, standby), at(40, new)];
        self.lineages.observe(&all_last_seen);
        let primary = by_node.iter().position(|role| *role == NodeRole::Primary);
        let lineages = self.lineages.trace(&all_last_seen, &by_node, primary);
        self.now += Duration::from_millis(400);
        lineages[1]
    }

    fn before(old: u64, standby: u64) -> Self {
        let mut set = Self::new();
        let start = set.now;
        let seen = set.see(Some(old), of(standby, 100), Observation::standby(1, FORK, start));
        assert_eq!(seen, Lineage::Shared, "nothing has happened yet");
        set
    }
}

/// Returns a standby at this position, with this receiver and no new timeline.
fn of(position: u64, receiver: i32) -> Observation {
    Observation { receiver_pid: Some(receiver), ..Observation::standby(1, position, Instant::now()) }
}

fn new(position: u64) -> Observation {
    let recovered_to = Some(Lsn::new(FORK));
    Observation { recovered_to, ..Observation::primary(2, position, Instant::now()) }
}

const UNPROVEN: Lineage = Lineage::Unproven { fork: Lsn::new(FORK) };
const PARTED: Lineage = Lineage::Parted { fork: Some(Lsn::new(FORK)) };

/// Rows that the primary did not have were served, with a lag of 2 ms.
#[test]
fn a_standby_that_was_ahead_of_the_fork_has_parted() {
    let mut set = Set::before(1200, 1200);
    assert_eq!(set.see(None, of(1200, 101), new(1100)), PARTED);
    assert_eq!(set.see(None, of(1200, 102), new(5000)), PARTED, "also when the primary has passed it");
}

#[test]
fn a_standby_that_is_later_ahead_of_the_primary_has_parted() {
    // No probe saw it ahead before the promotion.
    let mut set = Set::before(900, 900);
    assert_eq!(set.see(None, of(1200, 100), new(1100)), PARTED);
    assert_eq!(set.see(None, of(1200, 101), new(1300)), PARTED);
}

#[test]
fn a_standby_that_waits_past_the_fork_is_unproven() {
    let mut set = Set::before(900, 900);
    for _ in 0..5 {
        let received = Some(Lsn::new(512));
        assert_eq!(set.see(None, Observation { received, ..of(1200, 101) }, new(1300)), UNPROVEN);
    }
}

#[test]
fn a_standby_that_is_repointed_shares_the_history_all_the_time() {
    let mut set = Set::before(1000, 990);
    assert_eq!(set.see(None, Observation { receiver_pid: None, ..of(990, 0) }, new(1100)), Lineage::Shared);
    assert_eq!(set.see(None, of(1100, 101), new(1200)), Lineage::Shared);
    assert_eq!(set.see(Some(1050), of(1300, 101), new(1400)), Lineage::Shared, "a proof stands");
}

/// Half a second of reads saw rows that the primary did not have, until the next probe.
#[test]
fn a_standby_is_unproven_as_long_as_it_streams_from_an_old_primary() {
    let mut set = Set::before(1000, 1000);
    assert_eq!(set.see(None, of(1000, 100), new(1100)), UNPROVEN, "its receiver is the old one");
    assert_eq!(set.see(None, Observation { receiver_pid: None, ..of(1000, 0) }, new(1100)), Lineage::Shared);
    assert_eq!(set.see(Some(1010), of(1000, 101), new(1100)), UNPROVEN, "the old one is there");
}

/// Rows that the primary did not have were served as "1.2 s behind".
#[test]
fn a_standby_of_an_old_primary_out_of_sight_is_unproven() {
    let mut set = Set::before(1000, 1000);
    for round in 0_u64..4 {
        let seen = set.see(None, of(1001 + round, 100), new(1100 + 1000 * round));
        assert_eq!(seen, UNPROVEN, "{round}");
    }
    // Both primaries may have the same load: two thirds of the reads saw down rows when it kept step by chance.
    for round in 5_u64..12 {
        let seen = set.see(None, of(500 + 1000 * round, 100), new(1100 + 1000 * round));
        assert_eq!(seen, UNPROVEN, "{round}");
    }
    assert_eq!(set.see(None, of(20_000, 100), new(20_000)), UNPROVEN, "its receiver is the old one");
    assert_eq!(set.see(None, of(20_000, 101), new(20_000)), Lineage::Shared, "it was pointed elsewhere");
}

#[test]
fn a_standby_of_a_fenced_old_primary_is_unproven_until_it_has_passed_it() {
    let mut set = Set::before(1000, 1000);
    for round in 1_u64..4 {
        let old = 1000 + 10 * round;
        // A new receiver proves nothing: the old primary may have started it.
        assert_eq!(set.see(Some(old), of(old, 101), new(5000)), UNPROVEN, "{round}");
    }
    assert_eq!(set.see(Some(1040), of(1041, 101), new(5100)), Lineage::Shared);
}

#[test]
fn a_standby_of_an_idle_primary_is_proven_by_its_position_and_its_receiver() {
    let mut set = Set::before(1000, 1000);
    assert_eq!(set.see(Some(1100), of(1100, 101), new(1100)), UNPROVEN, "so is the old primary");
    let mut set = Set::before(1000, 1000);
    assert_eq!(set.see(Some(2000), of(1100, 100), new(1100)), UNPROVEN, "its receiver is the old one");
    assert_eq!(set.see(Some(2000), of(1100, 101), new(1100)), Lineage::Shared);
}

/// A program that started after the failover does not know the earlier receiver.
#[test]
fn without_earlier_observations_a_standby_that_keeps_step_shares_the_history() {
    let mut set = Set::new();
    for round in 1_u64..=3 {
        let seen = set.see(None, of(1000 + 1000 * round, 100), new(1100 + 1000 * round));
        assert_eq!(seen, UNPROVEN, "{round}");
    }
    set.see(None, of(4500, 100), new(5100));
    assert_eq!(set.see(None, of(5500, 100), new(6100)), Lineage::Shared);
}

#[test]
fn a_timeline_proves_the_history_and_a_restart_forgets_it() {
    let server = |started_at_micros| Some(ServerIdentity { started_at_micros, port: 5432, address: None });
    let mut set = Set::before(1200, 1200);
    assert_eq!(set.see(None, Observation { server: server(1), ..of(1200, 100) }, new(1100)), PARTED);
    let rebuilt = Observation { server: server(2), timeline: 2, ..of(1300, 103) };
    assert_eq!(set.see(None, rebuilt, new(1300)), Lineage::Shared);
    let mut set = Set::before(1200, 1200);
    assert_eq!(set.see(None, Observation { server: server(1), ..of(1200, 100) }, new(1100)), PARTED);
    let restarted = Observation { server: server(2), received: None, ..of(1200, 103) };
    assert_eq!(set.see(None, restarted, new(1300)), UNPROVEN, "a restart alone mends nothing");
}

#[test]
fn a_program_that_starts_later_needs_no_timeline_either() {
    let mut set = Set::new();
    // No other node is out of recovery, or could be.
    let at = set.now;
    let all_last_seen = [
        LastSeen::Observed(Observation::standby(1, 1300, at)),
        LastSeen::Observed(Observation::standby(1, 1300, at)),
        LastSeen::Observed(new(1400)),
    ];
    set.lineages.observe(&all_last_seen);
    let by_node = [NodeRole::Replica, NodeRole::Replica, NodeRole::Primary];
    assert_eq!(set.lineages.trace(&all_last_seen, &by_node, Some(NEW)), [Lineage::Shared; 3]);
}

/// 145 writes went to an old primary whose standby had long followed another one.
#[test]
fn a_standby_ahead_of_its_primary_implies_a_higher_timeline() {
    let start = Instant::now();
    let at = |millis, observation: Observation| {
        let at = start + Duration::from_millis(millis);
        LastSeen::Observed(Observation { at, answered_at: at + Duration::from_millis(1), ..observation })
    };
    let implied = |primary: LastSeen, standby: LastSeen| {
        let mut lineages = Lineages::default();
        let all_last_seen = [primary, standby];
        lineages.observe(&all_last_seen);
        lineages.overtaken(1, &all_last_seen, &[None; 2]).map_or(0, |(timeline, _)| timeline + 1)
    };
    let primary = Observation::primary(1, 1000, start);
    assert_eq!(implied(at(20, primary.clone()), at(0, of(1008, 100))), 2);
    assert_eq!(implied(at(20, primary.clone()), at(0, of(1000, 100))), 0, "it has all");
    assert_eq!(implied(at(0, primary.clone()), at(20, of(1008, 100))), 0, "it was asked later");
    let cut_off = Observation { streaming: false, receiver_pid: None, ..of(1008, 100) };
    assert_eq!(implied(at(20, primary.clone()), at(0, cut_off)), 0, "it follows no server");
    let newer = Observation { timeline: 2, ..primary };
    assert_eq!(implied(at(20, newer), at(0, of(1008, 100))), 0, "it may have parted from this primary");
}

/// Two standbys were promoted to one timeline, and a third one followed the one that was further. It was taken for proof
/// of the next timeline, so the primary that was kept stayed fenced for good.
#[test]
fn a_standby_that_a_rival_primary_may_feed_proves_no_timeline() {
    let start = Instant::now();
    let at = |millis, observation: Observation| {
        let at = start + Duration::from_millis(millis);
        LastSeen::Observed(Observation { at, answered_at: at + Duration::from_millis(1), ..observation })
    };
    let overtaken = |rival: LastSeen, claim: Option<u32>| {
        let mut lineages = Lineages::default();
        let standby = Observation { timeline: 2, ..of(1200, 100) };
        let all_last_seen = [at(0, standby), at(20, Observation::primary(2, 1100, start)), rival];
        lineages.observe(&all_last_seen);
        lineages.overtaken(0, &all_last_seen, &[None, Some(2), claim])
    };
    let rival = |position| at(20, Observation::primary(2, position, start));
    assert_eq!(overtaken(rival(1200), Some(2)), None, "the rival has all of it");
    assert_eq!(overtaken(rival(1150), Some(2)), Some((2, 2)), "neither has all of it");
    assert_eq!(overtaken(rival(1200), None), Some((2, 1)), "no write of such a rival counts");
    assert_eq!(overtaken(down(), Some(2)), None, "a rival out of sight may have gone on");
    assert_eq!(overtaken(down(), Some(1)), Some((2, 1)), "it wrote before the promotion");
}
