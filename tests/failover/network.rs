//! Incidents of the network between the program and its servers.

use std::time::Duration;

use pointsman::prelude::*;
use pointsman::testkit::wait::{until_health, until_writable};
use pointsman::testkit::{Cluster, NetworkNamespace, Server, TestkitError};
use pointsman::topology::Health;
use pointsman::{CheckoutError, Error, ReplicaSet};
use tokio::time::Instant;

use crate::fixture::{CREATE_ACKS, config_of, connect, replica};
use crate::load::{print_report, start_load};
use crate::test_error::TestResult;

/// A cluster with two replicas and a table, and a set that reaches the first replica at `far_url`.
async fn fixture(
    far_url: impl AsyncFnOnce(&Server) -> Result<String, TestkitError>,
) -> TestResult<(Cluster, ReplicaSet)> {
    let cluster = Cluster::builder().replicas(2).start().await?;
    cluster.primary().execute(CREATE_ACKS).await?;
    cluster.primary().execute("CREATE TABLE wide AS SELECT repeat('x', 500000) AS t").await?;
    cluster.wait_caught_up().await?;
    let far = replica(far_url(cluster.replica(0)).await?, "far");
    let near = replica(cluster.replica(1).url(), "near");
    let set = connect(config_of([cluster.primary()]).node(far).node(near)).await?;
    until_writable(&set).await?;
    Ok((cluster, set))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_refuses_resets_stalls_or_is_slow_fails_no_read() -> TestResult {
    let (cluster, set) = fixture(Server::proxied_url).await?;
    let proxy = cluster.replica(0).proxy().await?;
    let load = start_load(&set);
    load.done(600).await;

    // Break.
    proxy.reset().await?;
    load.done(300).await;
    until_health(&set, "far", Health::Up).await?;
    proxy.refuse().await?;
    proxy.reset().await?;
    until_health(&set, "far", Health::Down).await?;
    load.done(300).await;

    // Restore.
    proxy.pass().await?;
    until_health(&set, "far", Health::Up).await?;
    load.done(300).await;

    // Break.
    proxy.stall().await?;
    until_health(&set, "far", Health::Down).await?;

    // Restore.
    proxy.pass().await?;
    until_health(&set, "far", Health::Up).await?;
    load.done(300).await;

    // The node is slow, and not down: the traffic moves away.
    proxy.latency(Duration::from_millis(100)).await?;
    load.done(300).await;
    let count = || set.health().nodes.iter().map(|node| node.reads).collect::<Vec<_>>();
    let before = count();
    load.done(600).await;
    let after = count();
    let (slow, fast) = (after[1] - before[1], after[2] - before[2]);

    println!("100 ms away: {slow} reads there, {fast} on its neighbour");
    assert!(slow * 5 < fast, "{slow} of {fast}");
    let report = load.stop().await;
    print_report("a network refuses, resets, stalls and is slow", &report);
    assert_eq!(report.failed_reads().count(), 0, "{report}");
    assert_eq!(report.failed_writes().count(), 0, "{report}");
    assert!(report.slowest_read() < Duration::from_millis(400), "{report}");
    Ok(())
}

async fn length(conn: &Conn<Read>) -> QueryResult<usize> {
    let text = diesel::dsl::sql::<diesel::sql_types::Text>("(SELECT t FROM wide)");
    let text: String = diesel::select(text).get_result(conn).await?;
    Ok(text.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_ends_in_the_middle_is_an_error_or_read_elsewhere() -> TestResult {
    let (cluster, set) = fixture(Server::proxied_url).await?;
    let proxy = cluster.replica(0).proxy().await?;
    let far = async || loop {
        let conn = set.read().await?;
        if conn.node() == "far" {
            return Ok::<_, CheckoutError>(conn);
        }
    };
    let conn = far().await?;
    assert_eq!(length(&conn).await?, 500_000);

    // Break.
    proxy.cut_after(100_000).await?;

    length(&conn).await.expect_err("half of it");
    assert!(conn.is_closed());
    length(&conn).await.expect_err("it is over");
    drop(conn);

    // Restore.
    proxy.pass().await?;
    until_health(&set, "far", Health::Up).await?;

    assert_eq!(length(&far().await?).await?, 500_000, "no caller got the broken one");

    // Break.
    proxy.cut_after(100_000).await?;

    for _ in 0..40 {
        let read: Result<usize, Error> = set.run_read(async |conn| Ok(length(conn).await?)).await;
        assert_eq!(read?, 500_000);
    }
    Ok(())
}

/// If the system allows no namespace, the kit reports that, and the test checks the report.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_packets_are_lost_delays_no_read() -> TestResult {
    let namespace = match NetworkNamespace::create().await {
        Ok(namespace) => namespace,
        Err(error) => {
            println!("no network namespace here: {error}");
            assert!(matches!(&error, TestkitError::Program { output, .. } if !output.is_empty()), "{error}");
            return Ok(());
        }
    };
    let far_url = async |server: &Server| {
        let address = namespace.reach(server.port()).await?;
        Ok(server.url().replace("127.0.0.1", &address.ip().to_string()))
    };
    let (_cluster, set) = fixture(far_url).await?;
    let load = start_load(&set);
    load.done(900).await;

    // Break.
    namespace.cut_off().await?;
    let began = Instant::now();
    until_health(&set, "far", Health::Down).await?;
    let lost = began.elapsed();
    load.done(300).await;

    // Restore.
    namespace.join().await?;
    let began = Instant::now();
    until_health(&set, "far", Health::Up).await?;

    let back = began.elapsed();
    let report = load.stop().await;
    print_report("a machine vanishes", &report);
    println!("    lost after {lost:?}, back after {back:?}");
    assert_eq!(report.failed_reads().count(), 0, "{report}");
    assert!(report.slowest_read() < Duration::from_millis(250), "{report}");
    assert!(lost < Duration::from_millis(1200), "{lost:?}");
    Ok(())
}
