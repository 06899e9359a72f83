//! Incidents of the whole set, and of nodes that are alive but cannot serve.

use std::time::Duration;

use pointsman::config::WriteSettings;
use pointsman::testkit::Server;
use pointsman::testkit::wait::{until_all_serve, until_health, until_topology, until_writable};
use pointsman::topology::Health;
use pointsman::{CheckoutError, ReplicaSet};
use tokio::time::Instant;

use crate::fixture::{config_of, fixture, fixture_with, reason, replica, write_row};
use crate::load::{print_report, start_load};
use crate::test_error::TestResult;

/// Processor time of this process so far, of all its threads.
fn processor_time() -> Duration {
    let who = nix::sys::resource::UsageWho::RUSAGE_SELF;
    let usage = nix::sys::resource::getrusage(who).expect("it always works");
    let of = |time: nix::sys::time::TimeVal| {
        Duration::new(
            u64::try_from(time.tv_sec()).expect("not negative"),
            u32::try_from(time.tv_usec() * 1000).expect("below a second"),
        )
    };
    of(usage.user_time()) + of(usage.system_time())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_down_and_comes_back() -> TestResult {
    let writes = WriteSettings { failover_wait: Duration::from_secs(1), ..WriteSettings::default() };
    let (cluster, set) = fixture_with(2, |config| config.writes(writes)).await?;

    // Break.
    for server in cluster.servers() {
        server.kill().await?;
    }
    until_topology(&set, "all nodes are down", |topology| {
        topology.nodes.iter().all(|node| node.health == Health::Down)
    })
    .await?;

    let began = Instant::now();
    let error = set.write().await.expect_err("there is no primary");
    assert!(matches!(error, CheckoutError::NoPrimary { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_millis(1500), "within the deadline: {:?}", began.elapsed());
    let error = set.read().await.expect_err("there is no node");
    assert!(matches!(error, CheckoutError::NoNode { .. }), "{error}");

    // No caller asks for anything: the set's own work must be next to nothing.
    let (before, began) = (processor_time(), Instant::now());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let share = (processor_time() - before).as_secs_f64() / began.elapsed().as_secs_f64();
    println!("everything is down: {:.2} % of a core", share * 100.0);
    assert!(share < 0.02, "{share}");

    // Restore.
    for server in cluster.servers() {
        server.start().await?;
    }
    let ready = Instant::now();
    until_all_serve(&set).await?;
    until_writable(&set).await?;
    let back = ready.elapsed();
    println!("    full service {back:?} after the return");
    write_row(&set, 1).await?;

    assert!(back < Duration::from_secs(2), "{back:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_down_is_probed_by_its_backoff_and_no_more() -> TestResult {
    let (cluster, set) = fixture(1).await?;
    let proxy = cluster.replica(0).proxy().await?;
    let far = replica(cluster.replica(0).proxied_url().await?, "far");
    set.reconfigure(config_of([cluster.primary()]).node(far).build()?).await?;
    until_health(&set, "far", Health::Up).await?;
    let load = start_load(&set);
    load.done(300).await;

    // Its network accepts connections and never answers.
    proxy.stall().await?;
    until_health(&set, "far", Health::Down).await?;
    let before = proxy.accepted();
    let began = Instant::now();
    load.done(1800).await;
    let rate = (proxy.accepted() - before) as f64 / began.elapsed().as_secs_f64();

    println!("a node whose network stalls is dialled {rate:.1} times a second");
    assert!(rate < 4.0, "only the monitor connects: {rate}");

    let before = proxy.accepted();

    // Restore.
    proxy.pass().await?;
    until_health(&set, "far", Health::Up).await?;
    load.done(600).await;
    let burst = proxy.accepted() - before;

    println!("    {burst} connections in the second after it came back");
    assert!(burst <= 12, "no burst of connects: {burst}");
    let report = load.stop().await;
    print_report("a replica's network stalls", &report);
    assert!(report.slowest_read() < Duration::from_millis(250), "{report}");
    assert_eq!(report.failed_writes().count(), 0, "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_slots_and_one_that_rejects_the_login_have_different_health() -> TestResult {
    let (cluster, set) = fixture(2).await?;
    let (full, name) = (cluster.replica(0), cluster.replica(0).name());

    // No slot is left for the set's monitor, once it has to connect again.
    let wrong = replica(cluster.replica(1).wrong_password_url(), "wrong");
    let config = config_of(&cluster.servers()[..2]).node(wrong).build()?;
    let change = set.reconfigure(config).await?;
    assert_eq!(change.added, ["wrong"]);
    assert_eq!(change.removed, [cluster.replica(1).name()]);
    let health = |set: &ReplicaSet, name: &str| set.topology().node(name).map(|node| node.health);
    assert_eq!(health(&set, "wrong"), Some(Health::LoginRejected));
    let reason = reason(&set, "wrong");
    assert!(reason.contains("password") && reason.contains("28P01"), "{reason}");
    assert_eq!(health(&set, name), Some(Health::Up), "its neighbour is none the worse");

    // Break.
    let slots = full.exhaust_connections().await?;
    let other = ReplicaSet::connect(config_of(&cluster.servers()[..2]).build()?).await?;
    until_health(&other, name, Health::TooManyConnections).await?;

    assert!(other.read().await.is_ok(), "others serve meanwhile");

    // Restore.
    drop(slots);
    until_health(&other, name, Health::Up).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_come_and_go_while_traffic_runs() -> TestResult {
    let (cluster, set) = fixture(2).await?;
    let load = start_load(&set);
    load.done(300).await;
    let config = |servers: &[Server]| config_of(servers).build();
    let held = loop {
        let conn = set.read().await?;
        if conn.node() == cluster.replica(1).name() {
            break conn;
        }
    };
    for _ in 0..5 {
        let change = set.reconfigure(config(&cluster.servers()[..2])?).await?;
        assert_eq!(change.removed, [cluster.replica(1).name()]);
        load.done(120).await;
        set.reconfigure(config(cluster.servers())?).await?;
        load.done(120).await;
    }
    // A connection to a node that was removed is good until it is returned.
    let change = set.reconfigure(config(&cluster.servers()[..2])?).await?;
    assert!(!held.is_closed());
    drop(held);
    change.drained().await;
    let report = load.stop().await;
    print_report("nodes come and go", &report);
    assert_eq!(report.failed_reads().count(), 0, "{report}");
    assert_eq!(report.failed_writes().count(), 0, "{report}");
    Ok(())
}
