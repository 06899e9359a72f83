//! A set whose monitors' runtime ended, or is no longer driven, while the program goes on.

use pointsman::testkit::wait::until;
use std::time::Duration;

use pointsman::health::Status;
use pointsman::testkit::Cluster;
use pointsman::{Config, ReplicaSet};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, timeout};

use crate::support::{config_of, start_cluster, value};

/// A set that was connected on another runtime, and that runtime.
fn connected_elsewhere(runtime: Runtime, config: Config) -> (Runtime, ReplicaSet) {
    let connect = move || {
        let set = runtime.block_on(ReplicaSet::connect(config)).expect("a set");
        (runtime, set)
    };
    std::thread::spawn(connect).join().expect("no panic")
}

/// The primary fails over unseen; a write must not rely on the earlier state.
async fn assert_it_finds_the_new_primary(cluster: &Cluster, set: &ReplicaSet) {
    cluster.primary().kill().await.unwrap();
    cluster.replica(0).promote().await.unwrap();
    until("the set knows that its knowledge is old", async || set.health().status == Status::Stale)
        .await
        .unwrap();
    let began = Instant::now();
    let conn =
        timeout(Duration::from_secs(20), set.write()).await.expect("in time").expect("the new primary");
    assert_eq!(value(&conn, "SELECT pg_is_in_recovery()").await.unwrap(), "false");
    assert_eq!(conn.node(), set.topology().nodes[1].name);
    println!("found within {:?}", began.elapsed());
    assert_ne!(set.health().status, Status::Stale);
    assert!(set.health().nodes[1].probed_ms_ago.is_some());
}

/// The monitors ended with their runtime: the set reported healthy for ever, and never saw a failover again.
#[tokio::test]
async fn monitors_that_ended_with_their_runtime_are_started_again() {
    let cluster = start_cluster(1).await;
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (runtime, set) = connected_elsewhere(runtime, config_of(cluster.servers()));
    assert_eq!(set.health().status, Status::Healthy);
    runtime.shutdown_background();
    assert_it_finds_the_new_primary(&cluster, &set).await;
}

/// The same if the runtime still exists and no thread drives it.
#[tokio::test]
async fn monitors_on_a_runtime_that_is_not_driven_are_replaced() {
    let cluster = start_cluster(1).await;
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (runtime, set) = connected_elsewhere(runtime, config_of(cluster.servers()));
    assert_it_finds_the_new_primary(&cluster, &set).await;
    // The monitors that stood still are not there to wake up beside the new ones.
    let drive = move || runtime.block_on(async { tokio::time::sleep(Duration::from_millis(100)).await });
    std::thread::spawn(drive).join().expect("no panic");
    assert_ne!(set.health().status, Status::Stale);
}

/// The pools made their connections on the set's first runtime, so callers on another one got none any more.
#[tokio::test]
async fn pools_connect_on_the_runtime_of_their_callers() {
    let cluster = start_cluster(1).await;
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (runtime, set) = connected_elsewhere(runtime, config_of(cluster.servers()));
    runtime.shutdown_background();
    let conn = timeout(Duration::from_secs(20), set.read()).await.expect("in time").expect("a connection");
    assert_eq!(value(&conn, "SELECT 1").await.unwrap(), "1");
    let conn = timeout(Duration::from_secs(20), set.write()).await.expect("in time").expect("a connection");
    assert_eq!(value(&conn, "SELECT 1").await.unwrap(), "1");
}

/// A health report outside any runtime reports this as well, and does not panic.
#[test]
fn a_report_outside_any_runtime_says_that_it_is_old() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let config = Config::builder().primary("postgres://app@127.0.0.1:1/none").build().unwrap();
    let set = runtime.block_on(ReplicaSet::connect(config)).unwrap();
    assert_eq!(set.health().status, Status::Unhealthy);
    drop(runtime);
    assert_eq!(set.health().status, Status::Stale);
}
