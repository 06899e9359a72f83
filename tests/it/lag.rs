//! How far behind replicas are, and who serves when the primary does not say where it is.

use std::time::Duration;

use pointsman::config::{Fallback, ReadSettings};
use pointsman::testkit::Cluster;
use pointsman::topology::Health;
use tokio::time::{Instant, sleep};

use crate::support::{builder_of, eventually, start};

/// After `max_lag` every replica was out, although all of them followed: 6 of 6 reads failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_refuses_its_monitor_takes_no_replica_out() {
    let cluster = Cluster::builder().replicas(2).start().await.unwrap();
    let primary = cluster.primary();
    primary.execute("CREATE TABLE log (id bigint)").await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    let max_lag = Duration::from_secs(2);
    let reads = ReadSettings { max_lag, fallback: Fallback::Never, ..ReadSettings::default() };
    let set = start(builder_of(cluster.servers()).reads(reads)).await;
    eventually("the replicas serve", async || {
        set.health().nodes[1..].iter().all(|node| node.status.serves_reads)
    })
    .await;
    // Sessions that will be there when new ones are refused.
    drop(futures_util::future::join_all((0..20).map(|_| set.read())).await);
    // The password is rotated, and only the primary's monitor has to log in again.
    primary.change_password("another").await.unwrap();
    primary
        .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
        .await
        .unwrap();
    eventually("its monitor is refused", async || set.health().nodes[0].status.health == Health::Refused)
        .await;
    let began = Instant::now();
    let (mut reads, mut failed) = (0, 0);
    while began.elapsed() < max_lag * 2 {
        primary.execute("INSERT INTO log VALUES (1)").await.unwrap();
        let served = set.health().nodes[1..].iter().any(|node| node.status.serves_reads);
        let read = set.read().await;
        failed += usize::from(!served || read.is_err());
        reads += 1;
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(failed, 0, "of {reads} reads");
}
