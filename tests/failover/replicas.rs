//! Incidents of replicas: killed, hung, gone and back, lagging.

use std::time::Duration;

use pointsman::config::ReadSettings;
use pointsman::testkit::wait::until_all_serve;

use crate::fixture::{fixture, fixture_with, reason, until_left_out, until_serves_reads};
use crate::load::{print_report, start_load, start_plain_load};
use crate::test_error::TestResult;

/// On a machine with two cores that runs a cluster and its load, the scheduler alone makes gaps of this size.
const GAP: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replica_fails_no_read() -> TestResult {
    let (cluster, set) = fixture(2).await?;
    let load = start_load(&set);
    load.done(1200).await;

    // Break.
    cluster.replica(0).kill().await?;

    load.done(1200).await;
    let report = load.stop().await;
    print_report("a replica is killed", &report);
    assert_eq!(report.failed_reads().count(), 0, "{report}");
    assert_eq!(report.failed_writes().count(), 0, "{report}");
    assert!(report.longest_read_gap() < GAP, "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_replica_delays_no_read() -> TestResult {
    let (cluster, set) = fixture(2).await?;
    let load = start_load(&set);
    load.done(1200).await;

    // Break.
    cluster.replica(0).pause().await?;

    load.done(1200).await;
    let report = load.stop().await;
    print_report("a replica hangs", &report);
    assert_eq!(report.failed_reads().count(), 0, "{report}");
    assert_eq!(report.failed_writes().count(), 0, "{report}");
    assert!(report.slowest_read() < Duration::from_millis(250), "{report}");
    assert!(report.longest_read_gap() < GAP, "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_replica_fails_few_plain_reads_and_delays_them_for_a_second_at_most() -> TestResult {
    let (cluster, set) = fixture(2).await?;
    let load = start_plain_load(&set);
    load.done(1200).await;

    // Break.
    cluster.replica(0).pause().await?;

    load.done(1500).await;
    let report = load.stop().await;
    print_report("a replica hangs, plain reads", &report);
    assert!(report.slowest_read() < Duration::from_millis(1100), "{report}");
    assert!(report.failed_reads().count() <= 20, "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_replicas_go_and_come_back() -> TestResult {
    let (cluster, set) = fixture(2).await?;
    let load = start_load(&set);
    load.done(600).await;

    // Break.
    for replica in cluster.replicas() {
        replica.kill().await?;
    }

    load.done(1200).await;
    assert!(set.topology().reads_on_primary_only());

    // Restore.
    for replica in cluster.replicas() {
        replica.start().await?;
    }
    let ready = tokio::time::Instant::now();
    until_all_serve(&set).await?;

    let back = ready.elapsed();
    load.done(1200).await;
    let report = load.stop().await;
    print_report("all replicas go and come back", &report);
    println!("    back in use {back:?} after they were ready");
    assert_eq!(report.failed_reads().count(), 0, "{report}");
    assert_eq!(report.failed_writes().count(), 0, "{report}");
    assert!(back < Duration::from_secs(2), "{back:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_replay_is_paused_is_left_out_and_comes_back() -> TestResult {
    let reads = ReadSettings { max_lag: Duration::from_secs(1), ..ReadSettings::default() };
    let (cluster, set) = fixture_with(2, |config| config.reads(reads)).await?;
    let load = start_load(&set);
    load.done(600).await;
    let replica = cluster.replica(0);

    // Break.
    replica.pause_replay().await?;
    until_left_out(&set, replica).await?;

    let reason = reason(&set, replica.name());
    assert!(reason.contains("behind") && reason.contains("paused"), "{reason}");

    // Restore.
    replica.resume_replay().await?;
    until_serves_reads(&set, replica).await?;

    let report = load.stop().await;
    print_report("a replica's replay is paused", &report);
    assert_eq!(report.failed_reads().count(), 0, "{report}");
    Ok(())
}
