//! Incidents of replicas: killed, hung, gone and back, lagging.

use std::time::Duration;

use pointsman::config::ReadSettings;

use crate::load::{report, scene, scene_with, start, start_plain, until};

/// On a machine with two cores that runs a cluster and its load, the scheduler alone makes gaps of this size.
const GAP: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replica_fails_no_read() {
    let (cluster, set) = scene(2).await;
    let load = start(&set);
    load.done(1200).await;
    cluster.replica(0).kill().await.expect("killed");
    load.done(1200).await;
    let record = load.stop().await;
    report("a replica is killed", &record);
    assert_eq!(record.failed_reads().count(), 0, "{record}");
    assert_eq!(record.failed_writes().count(), 0, "{record}");
    assert!(record.longest_read_gap() < GAP, "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_replica_delays_no_read() {
    let (cluster, set) = scene(2).await;
    let load = start(&set);
    load.done(1200).await;
    cluster.replica(0).pause().await.expect("paused");
    load.done(1200).await;
    let record = load.stop().await;
    report("a replica hangs", &record);
    assert_eq!(record.failed_reads().count(), 0, "{record}");
    assert_eq!(record.failed_writes().count(), 0, "{record}");
    assert!(record.slowest_read() < Duration::from_millis(250), "{record}");
    assert!(record.longest_read_gap() < GAP, "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_reads_lose_what_was_in_flight_and_hang_for_a_second_at_most() {
    let (cluster, set) = scene(2).await;
    let load = start_plain(&set);
    load.done(1200).await;
    cluster.replica(0).pause().await.expect("paused");
    load.done(1500).await;
    let record = load.stop().await;
    report("a replica hangs, plain reads", &record);
    assert!(record.slowest_read() < Duration::from_millis(1100), "{record}");
    assert!(record.failed_reads().count() <= 20, "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_replicas_go_and_come_back() {
    let (cluster, set) = scene(2).await;
    let load = start(&set);
    load.done(600).await;
    for replica in cluster.replicas() {
        replica.kill().await.expect("killed");
    }
    load.done(1200).await;
    assert!(set.topology().reads_on_primary_only());
    for replica in cluster.replicas() {
        replica.start().await.expect("started");
    }
    let ready = tokio::time::Instant::now();
    until(&set, "both replicas serve again", |topology| {
        topology.nodes.iter().filter(|node| node.serves_reads).count() == 3
    })
    .await;
    let back = ready.elapsed();
    load.done(1200).await;
    let record = load.stop().await;
    report("all replicas go and come back", &record);
    println!("    back in use {back:?} after they were ready");
    assert_eq!(record.failed_reads().count(), 0, "{record}");
    assert_eq!(record.failed_writes().count(), 0, "{record}");
    assert!(back < Duration::from_secs(2), "{back:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_replay_is_paused_is_left_out_and_comes_back() {
    let reads = ReadSettings { max_lag: Duration::from_secs(1), ..ReadSettings::default() };
    let (cluster, set) = scene_with(2, |config| config.reads(reads)).await;
    let load = start(&set);
    load.done(600).await;
    let replica = cluster.replica(0);
    replica.pause_replay().await.expect("paused");
    let name = replica.name().to_owned();
    let serves =
        |topology: &pointsman::topology::Topology| topology.node(&name).is_some_and(|node| node.serves_reads);
    until(&set, "the replica is left out", |topology| !serves(topology)).await;
    let reason = set.topology().node(&name).and_then(|node| node.reason.clone()).unwrap_or_default();
    assert!(reason.contains("behind") && reason.contains("paused"), "{reason}");
    replica.resume_replay().await.expect("resumed");
    until(&set, "the replica is back", |topology| serves(topology)).await;
    let record = load.stop().await;
    report("a replica's replay is paused", &record);
    assert_eq!(record.failed_reads().count(), 0, "{record}");
}
