//! How often and why the monitors look at their nodes.

use std::time::Duration;

use pointsman::config::PoolSettings;
use pointsman::testkit::Cluster;
use pointsman::topology::Health;
use tokio::time::{Instant, sleep};

use crate::support::{builder_of, eventually, start, urls_of, value};

/// A connection that the pool closed for its age counted as a sign of trouble: the monitor was woken each time,
/// and reads went to the primary until it had looked.
#[tokio::test]
async fn connections_that_grow_old_are_no_sign_of_trouble() {
    let cluster = Cluster::builder().replicas(1).start().await.unwrap();
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
    assert_eq!(health.nodes[0].reads, 0, "the primary served none of {}", health.nodes[1].reads);
    let regular = began.elapsed().as_millis() / set.config().probe().interval.as_millis();
    let probes = health.nodes[1].probes;
    assert!(u128::from(probes) <= regular + 5, "{probes} probes where {regular} were due");
}

/// The limit of a monitor's dial grew with successes only: one reset on a way that had become 90 ms slower, and the node was
/// lost for good.
#[tokio::test]
async fn a_node_whose_way_became_slower_is_found_again() {
    let cluster = Cluster::builder().start().await.unwrap();
    let server = cluster.primary();
    let set = start(urls_of([server.proxied_url().await.unwrap()])).await;
    let probes = || set.health().nodes[0].probes;
    let proxy = server.proxy().await.unwrap();
    proxy.latency(Duration::from_millis(90)).await.unwrap();
    proxy.reset().await.unwrap();
    let before = probes();
    eventually("it was looked at again and again", async || probes() >= before + 4).await;
    eventually("it is up over the slower way", async || set.topology().nodes[0].health == Health::Up).await;
    value(&set.write().await.unwrap(), "SELECT 1").await.unwrap();
}
