use std::sync::{Mutex, PoisonError};

use tokio::time::sleep;

use super::super::state::tests::{config, primary, refused, set, standby, timed_out};
use super::*;
use crate::topology::{Health, NodeRole};

/// The reaction of a node to a probe.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Behavior {
    Primary {
        timeline: u32,
    },
    Standby,
    RefusesConnections,
    TimesOut,
    /// The primary answers after 60 ms.
    IsSlow,
    Hangs,
}

/// A prober whose node behaves as the test says.
#[derive(Debug, Clone)]
struct Script(Arc<Mutex<(Behavior, Vec<Instant>)>>);

impl Script {
    fn new(behavior: Behavior) -> Self {
        Self(Arc::new(Mutex::new((behavior, Vec::new()))))
    }

    fn set(&self, behavior: Behavior) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = behavior;
    }

    /// Returns the time of each probe since the last call.
    fn take_probes(&self) -> Vec<Instant> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// Returns the milliseconds between the probes since the last call.
    fn take_pauses(&self) -> Vec<u128> {
        let probes = self.take_probes();
        probes.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect()
    }
}

impl Probe for Script {
    async fn probe(&mut self) -> ProbeOutcome {
        let behavior = {
            let mut script = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            script.1.push(Instant::now());
            script.0
        };
        match behavior {
            Behavior::Primary { timeline } => primary(timeline, 100),
            Behavior::Standby => standby(1, 100),
            Behavior::RefusesConnections => refused(),
            Behavior::TimesOut => {
                sleep(Duration::from_millis(300)).await;
                timed_out()
            }
            Behavior::IsSlow => {
                sleep(Duration::from_millis(60)).await;
                primary(1, 100)
            }
            Behavior::Hangs => std::future::pending().await,
        }
    }

    fn longest(&self) -> Duration {
        Duration::from_millis(600)
    }
}

/// A primary and a replica, each with a monitor.
struct Fixture {
    topology: Arc<TopologyState>,
    nodes: Vec<Arc<Node>>,
    primary: Script,
    replica: Script,
    monitors: Vec<Monitor>,
}

impl Fixture {
    /// Starts the monitors, and waits until their probes have the usual interval.
    async fn start() -> Self {
        let config = config();
        let (topology, nodes) = set(&config);
        let primary = Script::new(Behavior::Primary { timeline: 1 });
        let replica = Script::new(Behavior::Standby);
        let monitor = |(node, script): (&Arc<Node>, &Script)| {
            let (probe, backoff, script) = (config.probe().clone(), config.backoff().clone(), script.clone());
            Monitor::start_with(Arc::clone(node), &topology, probe, backoff, move |_| script.clone())
        };
        let monitors = nodes.iter().zip([&primary, &replica]).map(monitor).collect();
        let fixture = Self { topology, nodes, primary, replica, monitors };
        sleep(Duration::from_secs(5)).await;
        fixture.primary.take_probes();
        fixture.replica.take_probes();
        fixture
    }

    fn health(&self, node: usize) -> Health {
        self.topology.snapshot().topology.nodes[node].health
    }

    fn role(&self, node: usize) -> NodeRole {
        self.topology.snapshot().topology.nodes[node].role
    }
}

const PRIMARY: usize = 0;
const REPLICA: usize = 1;

#[tokio::test(start_paused = true)]
async fn a_healthy_set_is_probed_once_an_interval() {
    let set = Fixture::start().await;
    assert_eq!((set.role(PRIMARY), set.role(REPLICA)), (NodeRole::Primary, NodeRole::Replica));
    sleep(Duration::from_secs(60)).await;
    for script in [&set.primary, &set.replica] {
        let pauses = script.take_pauses();
        assert!((149..=188).contains(&pauses.len()), "{}", pauses.len());
        // A timer may be a millisecond late.
        assert!(pauses.iter().all(|pause| (320..=401).contains(pause)), "{pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_down_is_probed_by_the_backoff() {
    let set = Fixture::start().await;
    let mut changes = set.topology.changes();
    set.replica.set(Behavior::RefusesConnections);
    changes.changed().await.expect("the state lives");
    assert_eq!(set.health(REPLICA), Health::Down);
    let down = Instant::now();
    set.replica.take_probes();
    set.primary.take_probes();

    sleep(Duration::from_millis(5_900)).await;
    let probes = set.replica.take_probes();
    let after: Vec<_> = probes.iter().map(|probe| (*probe - down).as_millis()).collect();
    let exact = [100, 300, 700, 1_500, 2_500, 3_500, 4_500, 5_500];
    assert_eq!(after.len(), exact.len(), "{after:?}");
    for (i, (after, exact)) in after.iter().zip(exact).enumerate() {
        // Each timer may be a millisecond or two late.
        assert!((exact..=exact + 2 * (i as u128 + 1)).contains(after), "{after} {exact}");
    }

    // A sign of trouble does not hasten it.
    set.nodes[REPLICA].stats().suspect();
    sleep(Duration::from_secs(4)).await;
    let pauses = set.replica.take_pauses();
    assert!(pauses.iter().all(|pause| (1000..=1002).contains(pause)), "{pauses:?}");
    let primary = set.primary.take_pauses();
    assert!(primary.iter().all(|pause| *pause >= 320), "a replica that is down is no search: {primary:?}");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_is_followed_by_a_second_probe_at_once() {
    let set = Fixture::start().await;
    let mut changes = set.topology.changes();
    set.replica.set(Behavior::TimesOut);
    changes.changed().await.expect("the state lives");
    assert_eq!(set.health(REPLICA), Health::Suspect);
    let suspected = Instant::now();
    changes.changed().await.expect("the state lives");
    assert_eq!(set.health(REPLICA), Health::Down);
    let took = suspected.elapsed().as_millis();
    assert!((300..=302).contains(&took), "{took}");

    set.replica.set(Behavior::Standby);
    changes.changed().await.expect("the state lives");
    assert_eq!((set.health(REPLICA), set.role(REPLICA)), (Health::Up, NodeRole::Replica));
    set.replica.take_probes();
    sleep(Duration::from_secs(5)).await;
    let pauses = set.replica.take_pauses();
    assert!(pauses.iter().all(|pause| (320..=401).contains(pause)), "the backoff is over: {pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_search_is_fast_at_first_and_slows_down() {
    let set = Fixture::start().await;
    let mut changes = set.topology.changes();
    set.primary.set(Behavior::RefusesConnections);
    changes.changed().await.expect("the state lives");
    assert_eq!(set.health(PRIMARY), Health::Down);
    set.replica.take_probes();

    let began = Instant::now();
    sleep(Duration::from_millis(200)).await;
    let probes = set.replica.take_probes();
    let first = (probes[0] - began).as_millis();
    assert!(first <= 26, "the other monitor is woken: {first}");
    assert!(probes.len() >= 7, "{}", probes.len());

    sleep(Duration::from_secs(10)).await;
    set.replica.take_probes();
    sleep(Duration::from_secs(10)).await;
    let pauses = set.replica.take_pauses();
    assert!(pauses.iter().all(|pause| *pause >= 320), "an old search costs no more: {pauses:?}");

    // The promotion is a change, and ends the search.
    set.replica.set(Behavior::Primary { timeline: 2 });
    changes.changed().await.expect("the state lives");
    assert_eq!(set.role(REPLICA), NodeRole::Primary);
    assert_eq!(*set.topology.search().borrow(), None);
}

/// The other monitors learned of a primary that hangs when its first probe had timed out, 0.3 s later.
#[tokio::test(start_paused = true)]
async fn a_late_answer_of_the_primary_begins_a_search_before_it_has_failed() {
    let set = Fixture::start().await;
    set.primary.set(Behavior::TimesOut);
    while set.primary.take_probes().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    set.replica.take_probes();
    sleep(Duration::from_millis(250)).await;
    assert_eq!(set.health(PRIMARY), Health::Up, "no probe has failed yet");
    let probes = set.replica.take_probes();
    // From 80 ms on at the latest, with pauses of at most 31 ms.
    assert!(probes.len() >= 5, "{}", probes.len());
    assert!(set.primary.take_probes().is_empty(), "the primary is not asked again meanwhile");

    set.replica.set(Behavior::Primary { timeline: 2 });
    let promoted = Instant::now();
    while set.role(REPLICA) != NodeRole::Primary {
        sleep(Duration::from_millis(1)).await;
    }
    assert!(promoted.elapsed() < Duration::from_millis(50), "{:?}", promoted.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_is_always_late_costs_its_replicas_few_probes() {
    let set = Fixture::start().await;
    set.primary.set(Behavior::IsSlow);
    sleep(Duration::from_secs(60)).await;
    assert_eq!((set.role(PRIMARY), set.health(PRIMARY)), (NodeRole::Primary, Health::Up));
    let probes = set.replica.take_probes().len();
    // As many as of a healthy set, and at most two in each of the nine searches.
    assert!((149..=188 + 18).contains(&probes), "{probes}");
    assert_eq!(*set.topology.search().borrow(), None);
}

/// The next usual probe of the new primary may be 0.4 s away.
#[tokio::test(start_paused = true)]
async fn a_promotion_that_a_session_reports_is_seen_at_once() {
    let set = Fixture::start().await;
    // No usual probe is near.
    while set.replica.take_probes().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    sleep(Duration::from_millis(50)).await;
    set.replica.set(Behavior::Primary { timeline: 2 });
    set.nodes[REPLICA].stats().wake_monitor();
    sleep(Duration::from_millis(3)).await;
    assert_eq!((set.role(REPLICA), set.role(PRIMARY)), (NodeRole::Primary, NodeRole::StalePrimary));
}

#[tokio::test(start_paused = true)]
async fn suspicions_wake_the_monitor_ten_times_a_second_at_most() {
    let set = Fixture::start().await;
    // No usual probe is near.
    while set.replica.take_probes().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    sleep(Duration::from_millis(150)).await;
    let stats = set.nodes[REPLICA].stats();
    stats.suspect();
    let began = Instant::now();
    sleep(Duration::from_millis(5)).await;
    let first = set.replica.take_probes();
    assert_eq!(first.len(), 1, "the first suspicion wakes it at once");
    assert!(!stats.is_suspected(), "the answer clears it");

    while began.elapsed() < Duration::from_secs(5) {
        stats.suspect();
        sleep(Duration::from_millis(1)).await;
    }
    let probes = set.replica.take_probes();
    for (i, probe) in probes.iter().enumerate() {
        let within = probes[i..].iter().take_while(|later| **later < *probe + Duration::from_secs(1)).count();
        assert!(within <= 10, "{within}");
    }
    assert!(probes.len() >= 35, "{}", probes.len());
    let others = set.primary.take_pauses();
    assert!(others.iter().all(|pause| *pause >= 320), "the other monitor is not woken: {others:?}");
}

#[tokio::test(start_paused = true)]
async fn a_monitor_that_hangs_makes_the_state_stale_and_one_that_is_ended_does_not() {
    let mut set = Fixture::start().await;
    let is_up_to_date = |set: &Fixture| set.topology.snapshot().is_up_to_date(Instant::now());
    set.replica.set(Behavior::Hangs);
    // At most a pause, the longest probe, and the time by which it may be late.
    sleep(Duration::from_millis(2_500)).await;
    assert!(is_up_to_date(&set));
    sleep(Duration::from_millis(600)).await;
    assert!(!is_up_to_date(&set));

    set.replica.set(Behavior::Standby);
    let (probe, backoff, script) =
        (config().probe().clone(), config().backoff().clone(), set.replica.clone());
    let replica = Arc::clone(&set.nodes[REPLICA]);
    let monitor = Monitor::start_with(replica, &set.topology, probe, backoff, move |_| script.clone());
    set.monitors[REPLICA] = monitor;
    sleep(Duration::from_millis(1)).await;
    assert!(is_up_to_date(&set), "the one that was replaced broke no promise");
}
