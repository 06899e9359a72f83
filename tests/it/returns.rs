//! Many programs, and servers that all come back at once.

use pointsman::testkit::wait::until;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use pointsman::CheckoutError;
use pointsman::config::ReadSettings;
use pointsman::testkit::{Cluster, Server};
use pointsman::topology::{Health, NodeRole};
use tokio::time::sleep;

use crate::support::{builder_of, checkout_within, start, start_cluster, value};

const PROGRAMS: usize = 12;
/// Tasks of each program that read or write one after the other, without a pause.
const READERS: usize = 20;
const WRITERS: usize = 8;

/// Logins of the program's role since the server's log had this length.
fn logins(server: &Server, since: usize) -> usize {
    let log = std::fs::read(server.data_dir().with_extension("log")).expect("a log");
    let log = String::from_utf8_lossy(&log[since..]).into_owned();
    log.lines().filter(|line| line.contains("connection authorized: user=app")).count()
}

fn log_length(server: &Server) -> usize {
    std::fs::read(server.data_dir().with_extension("log")).expect("a log").len()
}

/// When everything came back at once, each program filled a pool on the primary with reads that the replicas served a
/// moment later. Of 228 logins of 12 programs, 120 were these. Now there are about 170.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn returning_servers_get_as_many_logins_as_programs_have_work() {
    let cluster = Cluster::builder()
        .replicas(1)
        .setting("log_connections", "on")
        .setting("max_connections", "600")
        .start()
        .await
        .unwrap();
    let reads = || ReadSettings { slow_start: Duration::from_secs(60), ..ReadSettings::default() };
    let sets = join_all((0..PROGRAMS).map(|_| start(builder_of(cluster.servers()).reads(reads())))).await;
    let ended = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for set in &sets {
        for task in 0..READERS + WRITERS {
            let (set, ended) = (set.clone(), Arc::clone(&ended));
            tasks.push(tokio::spawn(async move {
                while !ended.load(Ordering::Relaxed) {
                    let _ = if task < READERS {
                        match set.read().await {
                            Ok(conn) => value(&conn, "SELECT 1").await.is_ok(),
                            Err(_) => false,
                        }
                    } else {
                        match set.write().await {
                            Ok(conn) => value(&conn, "SELECT 1").await.is_ok(),
                            Err(_) => false,
                        }
                    };
                    sleep(Duration::from_millis(5)).await;
                }
            }));
        }
    }
    sleep(Duration::from_millis(500)).await;
    for server in cluster.servers() {
        server.kill().await.unwrap();
    }
    let primary = cluster.primary();
    until("all programs know", async || {
        sets.iter().all(|set| set.topology().nodes.iter().all(|node| node.health == Health::Down))
    })
    .await
    .unwrap();
    let since = cluster.servers().iter().map(log_length).collect::<Vec<_>>();
    let (one, other) = tokio::join!(primary.start(), cluster.replica(0).start());
    one.and(other).unwrap();
    until("all programs have both again", async || {
        sets.iter().all(|set| {
            let topology = set.topology();
            let well = |node: &pointsman::topology::NodeStatus| node.health == Health::Up;
            topology.nodes.iter().all(well) && topology.nodes[0].role == NodeRole::Primary
        })
    })
    .await
    .unwrap();
    sleep(Duration::from_secs(2)).await;
    ended.store(true, Ordering::Relaxed);
    let counts: Vec<_> = cluster.servers().iter().zip(since).map(|(server, at)| logins(server, at)).collect();
    println!("{counts:?} logins of {PROGRAMS} programs at the primary and its replica");
    // A monitor, the writers, and the reads of the first steps, with some that begin at one moment.
    let needed = PROGRAMS * (1 + WRITERS + 8);
    assert!(counts[0] > PROGRAMS, "the log has them: {counts:?}");
    assert!(counts[0] <= needed, "{counts:?}, and {needed} are enough");
    assert!(counts[1] <= PROGRAMS * (1 + READERS), "{counts:?}");
    join_all(tasks).await;
}

/// The primary took `reads.max_fallback` reads at once, even just after its return.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_returning_primary_takes_reads_of_replicas_in_steps() {
    let cluster = start_cluster(1).await;
    let (primary, replica) = (cluster.primary(), cluster.replica(0));
    let reads = ReadSettings { slow_start: Duration::from_secs(600), ..ReadSettings::default() };
    let timeouts = checkout_within(Duration::from_millis(300));
    let set = start(builder_of(cluster.servers()).reads(reads).timeouts(timeouts)).await;
    let health = |i: usize| set.topology().nodes[i].health;
    replica.kill().await.unwrap();
    primary.kill().await.unwrap();
    until("both are lost", async || health(0) == Health::Down && health(1) == Health::Down).await.unwrap();
    primary.start().await.unwrap();
    until("the primary is back", async || health(0) == Health::Up).await.unwrap();
    let held = set.read().await.expect("the first step is one read");
    let error = set.read().await.expect_err("a second one is too early");
    assert!(matches!(error, CheckoutError::FallbackExhausted { limit: 1 }), "{error}");
    drop(held);
    set.read().await.expect("its place is free again");
}
