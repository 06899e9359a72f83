//! Incidents in which connections end while their nodes are healthy.

use std::time::Duration;

use futures_util::future::join_all;
use pointsman::config::NodeConfig;
use pointsman::prelude::*;
use pointsman::testkit::{Cluster, Server};
use pointsman::{Config, Error, ReplicaSet};
use tokio::time::sleep;

use crate::load::until;

async fn scene() -> (Cluster, ReplicaSet) {
    let cluster = Cluster::builder().replicas(2).proxied().start().await.expect("a cluster");
    let mut config = Config::builder();
    for (i, server) in cluster.servers().iter().enumerate() {
        let url = server.proxied_url().await.expect("a URL");
        let node = if i == 0 { NodeConfig::primary(url) } else { NodeConfig::replica(url) };
        config = config.node(node.expect("a URL").with_name(server.name()));
    }
    cluster.primary().execute("CREATE TABLE rows AS SELECT 1 AS n").await.expect("a table");
    cluster.wait_caught_up().await.expect("caught up");
    let set = ReplicaSet::connect(config.build().expect("valid")).await.expect("a set");
    until(&set, "all serve", |topology| topology.nodes.iter().all(|node| node.serves_reads)).await;
    (cluster, set)
}

/// Two statements with a pause between them, in which a connection can end as well.
async fn report(set: &ReplicaSet) -> Result<i64, Error> {
    let rows = || diesel::dsl::sql::<diesel::sql_types::BigInt>("(SELECT count(*) FROM rows)");
    let outcome: Result<i64, Error> = set
        .run_read(async |conn| {
            let first: i64 = diesel::select(rows()).get_result(conn).await?;
            sleep(Duration::from_micros(fastrand::u64(0..3_000))).await;
            let second: i64 = diesel::select(rows()).get_result(conn).await?;
            Ok(first + second)
        })
        .await;
    outcome
}

/// Reads in lanes while a fault lasts; returns their number, and the errors.
async fn read_through(set: &ReplicaSet, fault: impl Future<Output = ()>) -> (usize, Vec<String>) {
    let (end, ended) = tokio::sync::watch::channel(false);
    let lane = async || {
        let (mut reads, mut errors) = (0, Vec::new());
        while !*ended.borrow() {
            reads += 1;
            if let Err(error) = report(set).await {
                errors.push(format!("{error:?}"));
            }
        }
        (reads, errors)
    };
    let fault = async {
        fault.await;
        end.send_replace(true);
    };
    let (lanes, ()) = tokio::join!(join_all((0..12).map(|_| lane())), fault);
    let reads = lanes.iter().map(|(reads, _)| reads).sum();
    (reads, lanes.into_iter().flat_map(|(_, errors)| errors).collect())
}

/// Changes a setting of a server. The setting may also end the session that changes it.
async fn set_on(server: &Server, setting: &str) {
    for statement in [&format!("ALTER SYSTEM {setting}"), "SELECT pg_reload_conf()"] {
        let mut outcome = server.execute(statement).await;
        for _ in 0..100 {
            if outcome.is_ok() {
                break;
            }
            outcome = server.execute(statement).await;
        }
        outcome.expect("set");
    }
}

/// The driver reports "connection closed" a moment before the connection is marked as ended, and the set did not
/// recognise some ways in which a server ends a session. As a result, 3 of 36,067 reads failed with a connection error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_end_while_other_nodes_are_well_fail_no_read() {
    let (cluster, set) = scene().await;
    let replica = cluster.replica(0);
    let proxy = replica.proxy().await.expect("a proxy");
    let mut failed = Vec::new();
    for fault in ["terminated", "idle for too long", "reset", "cancelled by replay"] {
        let (reads, errors) = read_through(&set, async {
            match fault {
                "terminated" => {
                    for _ in 0..40 {
                        let all =
                            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
                        replica.execute(all).await.expect("terminated");
                        sleep(Duration::from_millis(20)).await;
                    }
                }
                "idle for too long" => {
                    set_on(replica, "SET idle_session_timeout = '1ms'").await;
                    sleep(Duration::from_secs(2)).await;
                    set_on(replica, "RESET idle_session_timeout").await;
                }
                "reset" => {
                    for _ in 0..40 {
                        proxy.reset().await.expect("reset");
                        proxy.pass().await.expect("passing");
                        sleep(Duration::from_millis(20)).await;
                    }
                }
                _ => {
                    for server in cluster.replicas() {
                        set_on(server, "SET max_standby_streaming_delay = 0").await;
                    }
                    for _ in 0..40 {
                        let lock = "BEGIN; LOCK TABLE rows IN ACCESS EXCLUSIVE MODE; COMMIT";
                        cluster.primary().execute(lock).await.expect("locked");
                        sleep(Duration::from_millis(20)).await;
                    }
                }
            }
        })
        .await;
        println!("connections to one of two replicas are {fault}: {} of {reads} reads failed", errors.len());
        failed.extend(errors);
    }
    assert!(failed.is_empty(), "{} failed: {failed:#?}", failed.len());
}
