//! Incidents of the whole set, and of nodes that are alive but cannot serve.

use std::time::Duration;

use pointsman::config::{NodeConfig, WriteSettings};
use pointsman::topology::Health;
use pointsman::{CheckoutError, Config, ReplicaSet};
use tokio::time::Instant;

use crate::load::{config_of, report, scene, scene_with, start, until, until_writable, write_row};

/// Processor time of this process so far, of all its threads.
fn processor_time() -> Duration {
    let usage =
        nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("it always works");
    let of = |time: nix::sys::time::TimeVal| {
        Duration::new(
            u64::try_from(time.tv_sec()).expect("not negative"),
            u32::try_from(time.tv_usec() * 1000).expect("below a second"),
        )
    };
    of(usage.user_time()) + of(usage.system_time())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_down_and_comes_back() {
    let writes = WriteSettings { failover_wait: Duration::from_secs(1), ..WriteSettings::default() };
    let (cluster, set) = scene_with(2, |config| config.writes(writes)).await;
    let mut proxied = Vec::new();
    for server in cluster.servers() {
        server.kill().await.expect("killed");
        proxied.push(server);
    }
    until(&set, "all are lost", |topology| topology.nodes.iter().all(|node| node.health == Health::Down))
        .await;

    let began = Instant::now();
    let error = set.write().await.expect_err("there is no primary");
    assert!(matches!(error, CheckoutError::NoPrimary { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_millis(1500), "within the deadline: {:?}", began.elapsed());
    let error = set.read().await.expect_err("there is nobody");
    assert!(matches!(error, CheckoutError::NoNode { .. }), "{error}");

    // No caller asks for anything: the set's own work must be next to nothing.
    let (before, began) = (processor_time(), Instant::now());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let share = (processor_time() - before).as_secs_f64() / began.elapsed().as_secs_f64();
    println!("everything is down: {:.2} % of a core", share * 100.0);
    assert!(share < 0.02, "{share}");

    for server in &proxied {
        server.start().await.expect("started");
    }
    let ready = Instant::now();
    until(&set, "all serve again", |topology| topology.nodes.iter().all(|node| node.serves_reads)).await;
    until_writable(&set).await;
    let back = ready.elapsed();
    println!("    full service {back:?} after the return");
    write_row(&set, 1).await.expect("a write");
    assert!(back < Duration::from_secs(2), "{back:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_down_is_probed_by_its_backoff_and_no_more() {
    let (cluster, set) = scene(1).await;
    let proxy = cluster.replica(0).proxy().await.expect("a proxy");
    let url = cluster.replica(0).proxied_url().await.expect("a URL");
    let config =
        config_of([cluster.primary()]).node(NodeConfig::replica(url).expect("a URL").with_name("far"));
    set.reconfigure(config.build().expect("valid")).await.expect("reconfigured");
    let health = |topology: &pointsman::topology::Topology| topology.node("far").map(|node| node.health);
    until(&set, "the replica is up", |topology| health(topology) == Some(Health::Up)).await;
    let load = start(&set);
    load.done(300).await;

    // Its network accepts connections and never answers.
    proxy.stall().await.expect("stalled");
    until(&set, "the replica is lost", |topology| health(topology) == Some(Health::Down)).await;
    let before = proxy.accepted();
    let began = Instant::now();
    load.done(1800).await;
    let rate = (proxy.accepted() - before) as f64 / began.elapsed().as_secs_f64();
    println!("a node whose network stalls is dialled {rate:.1} times a second");
    assert!(rate < 4.0, "one prober and nobody else: {rate}");

    let before = proxy.accepted();
    proxy.pass().await.expect("passing");
    until(&set, "the replica is up again", |topology| health(topology) == Some(Health::Up)).await;
    load.done(600).await;
    let burst = proxy.accepted() - before;
    println!("    {burst} connections in the second after it came back");
    assert!(burst <= 12, "no burst of connects: {burst}");
    let record = load.stop().await;
    report("a replica's network stalls", &record);
    assert!(record.slowest_read() < Duration::from_millis(250), "{record}");
    assert_eq!(record.failed_writes().count(), 0, "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_refusing_and_starting_nodes_are_told_apart() {
    let (cluster, set) = scene(2).await;
    let (replica, name) = (cluster.replica(0), cluster.replica(0).name().to_owned());

    // No slot is left for the set's monitor, once it has to connect again.
    let wrong =
        NodeConfig::replica(cluster.replica(1).wrong_password_url()).expect("a URL").with_name("wrong");
    let config = config_of(&cluster.servers()[..2]).node(wrong).build().expect("valid");
    let change = set.reconfigure(config).await.expect("reconfigured");
    assert_eq!(change.added, ["wrong"]);
    assert_eq!(change.removed, [cluster.replica(1).name()]);
    let health = |set: &ReplicaSet, name: &str| set.topology().node(name).map(|node| node.health);
    assert_eq!(health(&set, "wrong"), Some(Health::LoginRejected));
    let reason = set.topology().node("wrong").and_then(|node| node.reason.clone()).unwrap_or_default();
    assert!(reason.contains("password") && reason.contains("28P01"), "{reason}");
    assert_eq!(health(&set, &name), Some(Health::Up), "its neighbour is none the worse");

    let slots = replica.exhaust_connections().await.expect("exhausted");
    let full = config_of(&cluster.servers()[..2]);
    let other = ReplicaSet::connect(full.build().expect("valid")).await.expect("a set");
    until(&other, "the node is full", |topology| {
        topology.node(&name).is_some_and(|node| node.health == Health::TooManyConnections)
    })
    .await;
    assert!(other.read().await.is_ok(), "others serve meanwhile");
    drop(slots);
    until(&other, "it serves again", |topology| {
        topology.node(&name).is_some_and(|node| node.health == Health::Up)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_come_and_go_while_traffic_runs() {
    let (cluster, set) = scene(2).await;
    let load = start(&set);
    load.done(300).await;
    let config =
        |servers: &[pointsman::testkit::Server]| -> Config { config_of(servers).build().expect("valid") };
    let held = loop {
        let conn = set.read().await.expect("a read");
        if conn.node() == cluster.replica(1).name() {
            break conn;
        }
    };
    for _ in 0..5 {
        let change = set.reconfigure(config(&cluster.servers()[..2])).await.expect("reconfigured");
        assert_eq!(change.removed, [cluster.replica(1).name()]);
        load.done(120).await;
        set.reconfigure(config(cluster.servers())).await.expect("reconfigured");
        load.done(120).await;
    }
    // A connection to a node that was removed is good until it is returned.
    let change = set.reconfigure(config(&cluster.servers()[..2])).await.expect("reconfigured");
    assert!(!held.is_closed());
    drop(held);
    change.drained().await;
    let record = load.stop().await;
    report("nodes come and go", &record);
    assert_eq!(record.failed_reads().count(), 0, "{record}");
    assert_eq!(record.failed_writes().count(), 0, "{record}");
}
