//! The lag of replicas, and the serving nodes when the primary does not report its position.

use pointsman::testkit::wait::until;
use std::time::Duration;

use pointsman::ReplicaSet;
use pointsman::config::{Fallback, ReadSettings};
use pointsman::testkit::{Cluster, Server};
use pointsman::topology::Health;
use tokio::time::{Instant, sleep};

use crate::support::{builder_of, checkout_within, start, start_cluster};

/// After `max_lag` every replica was out, although all of them followed: 6 of 6 reads failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_refuses_its_monitor_takes_no_replica_out() {
    let cluster = start_cluster(2).await;
    let primary = cluster.primary();
    primary.execute("CREATE TABLE log (id bigint)").await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    let max_lag = Duration::from_secs(2);
    let reads = ReadSettings { max_lag, fallback: Fallback::Never, ..ReadSettings::default() };
    let set = start(builder_of(cluster.servers()).reads(reads)).await;
    until("the replicas serve", async || set.health().nodes[1..].iter().all(|node| node.status.serves_reads))
        .await
        .unwrap();
    // Sessions that will be there when new ones are refused.
    drop(futures_util::future::join_all((0..20).map(|_| set.read())).await);
    // The password is rotated, and only the primary's monitor has to log in again.
    primary.change_password("another").await.unwrap();
    primary
        .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
        .await
        .unwrap();
    until("its monitor is refused", async || set.health().nodes[0].status.health == Health::LoginRejected)
        .await
        .unwrap();
    let (reads, served) = reads_among_writes(&set, primary, max_lag * 2).await;
    assert_eq!(served.len(), reads, "all served");
}

/// Reads for some time while other programs write; returns the number of reads, and the nodes that served.
async fn reads_among_writes(set: &ReplicaSet, primary: &Server, time: Duration) -> (usize, Vec<String>) {
    let began = Instant::now();
    let (mut reads, mut served) = (0, Vec::new());
    while began.elapsed() < time {
        primary.execute("INSERT INTO log VALUES (1)").await.unwrap();
        reads += 1;
        served.extend(set.read().await.ok().map(|conn| conn.node().to_owned()));
        sleep(Duration::from_millis(50)).await;
    }
    (reads, served)
}

/// The monitor had no slot, so its lag grew with the clock: after `max_lag` none of its idle sessions was used any
/// more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_without_slots_whose_sessions_work_goes_on_serving() {
    let cluster = start_cluster(1).await;
    let (primary, replica) = (cluster.primary(), cluster.replica(0));
    primary.execute("CREATE TABLE log (id bigint)").await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    let max_lag = Duration::from_secs(2);
    let reads = ReadSettings { max_lag, ..ReadSettings::default() };
    let config = builder_of(cluster.servers()).reads(reads).timeouts(checkout_within(Duration::from_secs(1)));
    let set = start(config).await;
    until("the replica serves", async || set.health().nodes[1].status.serves_reads).await.unwrap();
    let name = set.health().nodes[1].status.name.clone();
    drop(futures_util::future::join_all((0..5).map(|_| set.read())).await);
    shut_out_the_monitor(&cluster, replica).await;
    until("its monitor has no slot", async || {
        set.health().nodes[1].status.health == Health::TooManyConnections
    })
    .await
    .unwrap();
    let (reads, served) = reads_among_writes(&set, primary, max_lag * 2).await;
    let on_replica = served.iter().filter(|node| **node == name).count();
    assert_eq!(on_replica, reads, "{served:?}");

    // And if it cannot serve any more, the error has the reason.
    replica
        .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
        .await
        .unwrap();
    primary
        .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
        .await
        .unwrap();
    primary.execute("ALTER ROLE app CONNECTION LIMIT 0").await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    until("all refuse", async || set.read().await.is_err()).await.unwrap();
    let error = set.read().await.expect_err("no slot anywhere").to_string();
    assert!(error.contains("53300"), "{error}");
}

/// The role gets no new session (53300), and the monitor's session ends.
async fn shut_out_the_monitor(cluster: &Cluster, server: &Server) {
    cluster.primary().execute("ALTER ROLE app CONNECTION LIMIT 1").await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    let sql =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT r.in_recovery%'";
    server.execute(sql).await.unwrap();
}
