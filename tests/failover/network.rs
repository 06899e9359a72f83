//! Incidents of the network between the program and its servers.

use std::time::Duration;

use pointsman::config::NodeConfig;
use pointsman::prelude::*;
use pointsman::testkit::{Cluster, NetworkNamespace, TestkitError};
use pointsman::topology::Health;
use pointsman::{Config, Error, ReplicaSet};
use tokio::time::Instant;

use crate::load::{config_of, report, start, until, until_writable};

/// Two replicas, the first of them behind a proxy.
async fn scene() -> (Cluster, ReplicaSet) {
    let cluster = Cluster::builder().replicas(2).start().await.expect("a cluster");
    cluster.primary().execute("CREATE TABLE acks (id bigint PRIMARY KEY)").await.expect("a table");
    cluster.primary().execute("CREATE TABLE wide AS SELECT repeat('x', 500000) AS t").await.expect("a table");
    cluster.wait_caught_up().await.expect("caught up");
    let far = NodeConfig::replica(cluster.replica(0).proxied_url().await.expect("a URL")).expect("a URL");
    let near = NodeConfig::replica(cluster.replica(1).url()).expect("a URL").with_name("near");
    let config = config_of([cluster.primary()]).node(far.with_name("far")).node(near);
    let set = ReplicaSet::connect(config.build().expect("valid")).await.expect("a set");
    until_writable(&set).await;
    until(&set, "all serve", |topology| topology.nodes.iter().all(|node| node.serves_reads)).await;
    (cluster, set)
}

async fn until_health(set: &ReplicaSet, name: &str, health: Health) {
    until(set, "its health changes", |topology| {
        topology.node(name).is_some_and(|node| node.health == health)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_refuses_resets_stalls_or_is_slow_fails_no_read() {
    let (cluster, set) = scene().await;
    let proxy = cluster.replica(0).proxy().await.expect("a proxy");
    let load = start(&set);
    load.done(600).await;
    proxy.reset().await.expect("reset");
    load.done(300).await;
    until_health(&set, "far", Health::Up).await;
    proxy.refuse().await.expect("refused");
    proxy.reset().await.expect("reset");
    until_health(&set, "far", Health::Down).await;
    load.done(300).await;
    proxy.pass().await.expect("passing");
    until_health(&set, "far", Health::Up).await;
    load.done(300).await;
    proxy.stall().await.expect("stalled");
    until_health(&set, "far", Health::Down).await;
    proxy.pass().await.expect("passing");
    until_health(&set, "far", Health::Up).await;
    load.done(300).await;

    // The node is slow, and not down: the traffic moves away.
    proxy.latency(Duration::from_millis(100)).await.expect("slow");
    load.done(300).await;
    let count = || set.health().nodes.iter().map(|node| node.reads).collect::<Vec<_>>();
    let before = count();
    load.done(600).await;
    let after = count();
    let (slow, fast) = (after[1] - before[1], after[2] - before[2]);
    println!("100 ms away: {slow} reads there, {fast} on its neighbour");
    assert!(slow * 5 < fast, "{slow} of {fast}");
    let record = load.stop().await;
    report("a network refuses, resets, stalls and is slow", &record);
    assert_eq!(record.failed_reads().count(), 0, "{record}");
    assert_eq!(record.failed_writes().count(), 0, "{record}");
    assert!(record.slowest_read() < Duration::from_millis(400), "{record}");
}

async fn length(conn: &Conn<Read>) -> QueryResult<usize> {
    let text = diesel::dsl::sql::<diesel::sql_types::Text>("(SELECT t FROM wide)");
    let text: String = diesel::select(text).get_result(conn).await?;
    Ok(text.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_ends_in_the_middle_is_an_error_or_read_elsewhere() {
    let (cluster, set) = scene().await;
    let proxy = cluster.replica(0).proxy().await.expect("a proxy");
    let far = async || loop {
        let conn = set.read().await.expect("a read");
        if conn.node() == "far" {
            return conn;
        }
    };
    let conn = far().await;
    assert_eq!(length(&conn).await.expect("an answer"), 500_000);
    proxy.cut_after(100_000).await.expect("cut");
    length(&conn).await.expect_err("half of it");
    assert!(conn.is_closed());
    length(&conn).await.expect_err("it is over");
    drop(conn);
    proxy.pass().await.expect("passing");
    until_health(&set, "far", Health::Up).await;
    assert_eq!(length(&far().await).await.expect("an answer"), 500_000, "nobody got the broken one");

    proxy.cut_after(100_000).await.expect("cut");
    for _ in 0..40 {
        let read: Result<usize, Error> = set.run_read(async |conn| Ok(length(conn).await?)).await;
        assert_eq!(read.expect("read elsewhere"), 500_000);
    }
}

/// If the system allows no namespace, the kit reports that, and the test checks the report.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_vanishes_delays_no_read() {
    let namespace = match NetworkNamespace::create().await {
        Ok(namespace) => namespace,
        Err(error) => {
            println!("no network namespace here: {error}");
            assert!(matches!(&error, TestkitError::Program { output, .. } if !output.is_empty()), "{error}");
            return;
        }
    };
    let cluster = Cluster::builder().replicas(2).start().await.expect("a cluster");
    cluster.primary().execute("CREATE TABLE acks (id bigint PRIMARY KEY)").await.expect("a table");
    cluster.wait_caught_up().await.expect("caught up");
    let addr = namespace.reach(cluster.replica(0).port()).await.expect("an address");
    let url = cluster.replica(0).url().replace("127.0.0.1", &addr.ip().to_string());
    let far = NodeConfig::replica(url).expect("a URL").with_name("far");
    let near = NodeConfig::replica(cluster.replica(1).url()).expect("a URL").with_name("near");
    let config: Config = config_of([cluster.primary()]).node(far).node(near).build().expect("valid");
    let set = ReplicaSet::connect(config).await.expect("a set");
    until_health(&set, "far", Health::Up).await;
    until(&set, "all serve", |topology| topology.nodes.iter().all(|node| node.serves_reads)).await;
    let load = start(&set);
    load.done(900).await;
    namespace.cut_off().await.expect("cut off");
    let began = Instant::now();
    until_health(&set, "far", Health::Down).await;
    let lost = began.elapsed();
    load.done(300).await;
    namespace.join().await.expect("joined");
    let began = Instant::now();
    until_health(&set, "far", Health::Up).await;
    let back = began.elapsed();
    let record = load.stop().await;
    report("a machine vanishes", &record);
    println!("    lost after {lost:?}, back after {back:?}");
    assert_eq!(record.failed_reads().count(), 0, "{record}");
    assert!(record.slowest_read() < Duration::from_millis(250), "{record}");
    assert!(lost < Duration::from_millis(1200), "{lost:?}");
}
