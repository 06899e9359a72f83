use std::io::ErrorKind;
use std::time::Duration;

use tokio::time::sleep;

use super::super::health::Signs;
use super::*;
use crate::error::ConnectError;
use crate::lsn::Lsn;
use crate::options::ReadOptions;
use crate::topology::{NodeFilter, Observation, ProbeError};

/// Returns a configuration of a primary and a replica, with a backoff without jitter.
pub(in crate::topology) fn config() -> Arc<Config> {
    let backoff = crate::backoff::Backoff::new(Duration::from_millis(100), Duration::from_secs(1)).unwrap();
    let builder = Config::builder().primary("postgres://app@db-1/app").replica("postgres://app@db-2/app");
    Arc::new(builder.backoff(backoff).build().expect("valid"))
}

/// Creates the state of a set, and its nodes.
///
/// Their pools stay empty. A pool with connections has another clock, which does not pause.
pub(in crate::topology) fn set(config: &Arc<Config>) -> (Arc<TopologyState>, Vec<Arc<Node>>) {
    let node = |node| Arc::new(Node::new(node, config).expect("no certificate"));
    let nodes: Vec<_> = config.nodes().iter().map(node).collect();
    (Arc::new(TopologyState::new(Arc::clone(config), nodes.clone())), nodes)
}

pub(in crate::topology) fn primary(timeline: u32, position: u64) -> ProbeOutcome {
    let observation = Observation::primary(timeline, position, Instant::now());
    ProbeOutcome::Answered(Observation { recovered_to: Some(Lsn::new(100)), ..observation })
}

pub(in crate::topology) fn standby(timeline: u32, position: u64) -> ProbeOutcome {
    ProbeOutcome::Answered(Observation::standby(timeline, position, Instant::now()))
}

pub(in crate::topology) fn timed_out() -> ProbeOutcome {
    let limit = Duration::from_millis(300);
    ProbeOutcome::Missed(ProbeError::TimedOut { limit }, Signs::default())
}

pub(in crate::topology) fn refused() -> ProbeOutcome {
    let error = ConnectError::Unreachable(ErrorKind::ConnectionRefused.into());
    ProbeOutcome::Missed(ProbeError::Connect(Arc::new(error)), Signs::default())
}

/// A set of two nodes, with a subscriber.
struct Fixture {
    topology: Arc<TopologyState>,
    nodes: Vec<Arc<Node>>,
    changes: watch::Receiver<Arc<Topology>>,
}

const A: usize = 0;
const B: usize = 1;

impl Fixture {
    /// Creates a set of which the subscriber knows that both nodes are healthy.
    fn new() -> Self {
        let (topology, nodes) = set(&config());
        let changes = topology.changes();
        let mut fixture = Self { topology, nodes, changes };
        assert!(fixture.changes_after(A, primary(1, 100)));
        assert!(fixture.changes_after(B, standby(1, 100)));
        fixture
    }

    /// Posts an outcome; returns `true` if subscribers were notified.
    fn changes_after(&mut self, node: usize, outcome: ProbeOutcome) -> bool {
        self.topology.post(&self.nodes[node], outcome, Instant::now());
        let changed = self.changes.has_changed().expect("the state lives");
        self.changes.borrow_and_update();
        changed
    }

    /// Returns role, health, and whether the node serves reads.
    fn node(&self, node: usize) -> (NodeRole, Health, bool) {
        let snapshot = self.topology.snapshot();
        let status = &snapshot.topology.nodes[node];
        (status.role, status.health, status.serves_reads)
    }

    /// Returns the tier in which the node would serve a read now.
    fn tier(&self, node: usize) -> Option<Tier> {
        let candidates =
            self.topology.snapshot().candidates(&ReadOptions::new(), NodeFilter::All, None, Instant::now());
        candidates.iter().find(|candidate| candidate.node == node).map(|candidate| candidate.rank.tier)
    }

    fn primary(&self) -> PrimaryStatus {
        self.topology.snapshot().topology.primary.clone()
    }

    fn search(&self) -> Option<Instant> {
        *self.topology.search().borrow()
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_goes_down_and_comes_back() {
    let mut set = Fixture::new();
    assert_eq!(set.node(B), (NodeRole::Replica, Health::Up, true));
    assert_eq!(set.tier(B), Some(Tier::Fit));

    sleep(Duration::from_millis(400)).await;
    assert!(set.changes_after(B, timed_out()));
    assert_eq!(set.node(B), (NodeRole::Replica, Health::Suspect, false), "it keeps its role");
    assert_eq!(set.tier(B), None);

    sleep(Duration::from_millis(300)).await;
    assert!(set.changes_after(B, timed_out()));
    assert_eq!(set.node(B), (NodeRole::Unknown, Health::Down, false));
    assert!(!set.changes_after(B, timed_out()), "it goes down once");
    assert_eq!(set.search(), None, "the primary is healthy");

    sleep(Duration::from_secs(5)).await;
    set.changes_after(A, primary(1, 100));
    assert!(set.changes_after(B, standby(1, 100)));
    assert_eq!(set.node(B), (NodeRole::Replica, Health::Up, true));

    // Slow start allows one read at once at first, and any number after two seconds.
    let read = set.nodes[B].stats().enter();
    assert_eq!(set.tier(B), Some(Tier::Recovering));
    sleep(config().reads().slow_start).await;
    assert_eq!(set.tier(B), Some(Tier::Fit));
    drop(read);
}

#[tokio::test(start_paused = true)]
async fn a_measurement_is_no_change_for_subscribers() {
    let mut set = Fixture::new();
    let version = set.topology.snapshot().topology.version;
    sleep(Duration::from_millis(400)).await;
    assert!(!set.changes_after(A, primary(1, 5_000)));
    assert!(!set.changes_after(B, standby(1, 4_000)));
    let snapshot = set.topology.snapshot();
    assert_eq!(snapshot.topology.version, version + 2);
    let lag = snapshot.topology.nodes[B].lag.expect("known");
    assert_eq!((lag.bytes, lag.time), (Some(1_000), Some(Duration::from_millis(400))));
}

#[tokio::test(start_paused = true)]
async fn a_suspected_replica_serves_after_others_until_its_next_probe() {
    let mut set = Fixture::new();
    set.nodes[B].stats().suspect();
    assert_eq!(set.tier(B), Some(Tier::Suspected));
    assert!(!set.changes_after(A, primary(1, 100)), "a suspicion is no change for subscribers");
    assert_eq!(set.tier(B), Some(Tier::Suspected), "another node's probe proves nothing");
    set.changes_after(B, standby(1, 100));
    assert_eq!(set.tier(B), Some(Tier::Fit));
}

#[tokio::test(start_paused = true)]
async fn a_search_lasts_from_the_primary_s_first_missed_probe_until_a_promotion_is_seen() {
    let mut set = Fixture::new();
    assert_eq!(set.search(), None);

    sleep(Duration::from_secs(1)).await;
    assert!(set.changes_after(A, timed_out()));
    assert_eq!(set.search(), Some(Instant::now()));
    assert!(set.nodes[A].write_pool().is_some(), "one missed probe is no reason to stop writes");

    sleep(Duration::from_millis(300)).await;
    assert!(set.changes_after(A, refused()));
    assert_eq!(set.primary(), PrimaryStatus::None);
    assert_eq!(set.search(), Some(Instant::now()), "a node went down, so the search is urgent again");
    assert!(set.nodes[A].write_pool().is_none());
    assert_eq!(set.tier(B), Some(Tier::Fit), "its lag was measured a moment ago");

    let began = Instant::now();
    sleep(Duration::from_secs(2)).await;
    assert!(!set.changes_after(B, standby(1, 100)));
    assert_eq!(set.search(), Some(began), "nothing changed, so the search grows older");

    assert!(set.changes_after(B, primary(2, 200)));
    assert_eq!(set.primary(), PrimaryStatus::One { node: set.nodes[B].name().to_owned(), timeline: 2 });
    assert!(set.nodes[B].write_pool().is_some());
    assert_eq!(set.search(), None);

    assert!(set.changes_after(A, primary(1, 150)));
    assert_eq!(set.node(A), (NodeRole::StalePrimary, Health::Up, false));
    assert!(set.nodes[A].write_pool().is_none());
    assert!(set.topology.is_fenced(&set.nodes[A]));
}

#[tokio::test(start_paused = true)]
async fn answers_from_before_the_history_was_forgotten_do_not_count() {
    let mut set = Fixture::new();
    let old = primary(1, 100);
    sleep(Duration::from_secs(1)).await;
    set.topology.forget(Instant::now());
    assert_eq!(set.node(A), (NodeRole::Unknown, Health::Unknown, false));
    set.changes.borrow_and_update();
    assert!(!set.changes_after(A, old));
    assert_eq!(set.node(A), (NodeRole::Unknown, Health::Unknown, false));
    assert!(set.changes_after(A, primary(1, 100)));
}
