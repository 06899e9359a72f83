//! The rate of the monitors' probes, and their causes.

use pointsman::testkit::wait::until;
use std::time::Duration;

use pointsman::config::{NodeConfig, PoolSettings};
use pointsman::topology::{Health, PrimaryStatus};
use pointsman::{Config, ReplicaSet};
use tokio::time::{Instant, sleep};

use crate::support::{builder_of, start, start_cluster, urls_of, value};

/// A connection that the pool closed for its age counted as a sign of trouble. The monitor was woken each time, and
/// reads went to the primary until it had probed.
#[tokio::test]
async fn connections_that_reach_their_maximum_age_wake_no_monitor() {
    let cluster = start_cluster(1).await;
    let pool = PoolSettings {
        max_lifetime: Duration::from_millis(50),
        idle_timeout: Duration::from_millis(40),
        lifetime_jitter: 0.5,
        ..PoolSettings::default()
    };
    let set = start(builder_of(cluster.servers()).pool(pool)).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        let reads = (0..4).map(|_| async {
            let conn = set.read().await.expect("a replica");
            value(&conn, "SELECT 1").await.expect("a read");
        });
        futures_util::future::join_all(reads).await;
        sleep(Duration::from_millis(2)).await;
    }
    let health = set.health();
    let regular = began.elapsed().as_millis() / set.config().probe().interval.as_millis();
    let probes = health.nodes[1].probes;
    assert!(u128::from(probes) <= regular * 5 / 4 + 3, "{probes} probes where {regular} were due");
}

/// The limit of a monitor's dial grew with successes only. After one reset on a path that had become 90 ms slower, the
/// node was down for good.
#[tokio::test]
async fn a_node_behind_a_path_that_became_slower_serves_again() {
    let cluster = start_cluster(0).await;
    let server = cluster.primary();
    let set = start(urls_of([server.proxied_url().await.unwrap()])).await;
    let probes = || set.health().nodes[0].probes;
    let proxy = server.proxy().await.unwrap();
    proxy.latency(Duration::from_millis(90)).await.unwrap();
    proxy.reset().await.unwrap();
    let before = probes();
    until("it was probed again and again", async || probes() >= before + 4).await.unwrap();
    until("it is up over the slower way", async || set.topology().nodes[0].health == Health::Up)
        .await
        .unwrap();
    value(&set.write().await.unwrap(), "SELECT 1").await.unwrap();
}

/// Probes a second that a node got from this set while a state persisted, after the first seconds of it.
async fn persisting(set: &ReplicaSet, node: usize) -> f64 {
    sleep(Duration::from_secs(5)).await;
    let (began, before) = (Instant::now(), set.health().nodes[node].probes);
    sleep(Duration::from_secs(3)).await;
    let probes = set.health().nodes[node].probes - before;
    let rate = f64::from(u32::try_from(probes).expect("few")) / began.elapsed().as_secs_f64();
    println!("{rate:.1} probes a second");
    rate
}

/// With jitter, the rate of a healthy node: the interval of 400 ms is shortened by a tenth on average.
const CALM: f64 = 3.5;

/// Each replica was probed every 25 ms for as long as there was no primary.
#[tokio::test]
async fn without_a_primary_probes_become_rare() {
    let cluster = start_cluster(1).await;
    let set = start(builder_of(cluster.servers())).await;
    cluster.primary().stop().await.unwrap();
    until("it is noticed", async || set.topology().primary == PrimaryStatus::None).await.unwrap();
    let rate = persisting(&set, 1).await;
    assert!(rate < CALM, "{rate}");
}

/// The same for a primary that is alive and refuses its monitor.
#[tokio::test]
async fn a_primary_that_refuses_its_monitor_costs_its_replicas_no_more_probes() {
    let cluster = start_cluster(1).await;
    let primary = NodeConfig::primary(cluster.primary().wrong_password_url()).unwrap();
    let replica = NodeConfig::replica(cluster.replica(0).url()).unwrap();
    let set = start(Config::builder().node(primary).node(replica)).await;
    assert_eq!(set.topology().nodes[0].health, Health::LoginRejected);
    let rate = persisting(&set, 1).await;
    assert!(rate < CALM, "{rate}");
}

/// The same for as long as two nodes were primaries.
#[tokio::test]
async fn a_split_brain_that_persists_is_probed_like_a_set_that_is_well() {
    let cluster = start_cluster(2).await;
    let set = start(builder_of(cluster.servers())).await;
    cluster.primary().kill().await.unwrap();
    let (one, other) = tokio::join!(cluster.replica(0).promote(), cluster.replica(1).promote());
    one.and(other).unwrap();
    let split = |set: &ReplicaSet| matches!(set.topology().primary, PrimaryStatus::SplitBrain { .. });
    until("it is noticed", async || split(&set)).await.unwrap();
    for node in [1, 2] {
        let rate = persisting(&set, node).await;
        assert!(rate < CALM, "{rate}");
    }
}
