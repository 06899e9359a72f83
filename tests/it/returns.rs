//! Many programs, and servers that all come back at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use pointsman::testkit::{Cluster, Server};
use pointsman::topology::{Health, Standing};
use tokio::time::sleep;

use crate::support::{builder_of, eventually, start, value};

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

/// When everything came back at once, programs opened more sessions than they had work for. Each needs one for its monitor
/// and one for each task that waits, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_find_everything_back_log_in_as_often_as_they_have_work() {
    let cluster = Cluster::builder()
        .replicas(1)
        .setting("log_connections", "on")
        .setting("max_connections", "600")
        .start()
        .await
        .unwrap();
    let sets = join_all((0..PROGRAMS).map(|_| start(builder_of(cluster.servers())))).await;
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
    eventually("all programs know", async || {
        sets.iter().all(|set| set.topology().nodes.iter().all(|node| node.health == Health::Lost))
    })
    .await;
    let since = cluster.servers().iter().map(log_length).collect::<Vec<_>>();
    let (one, other) = tokio::join!(primary.start(), cluster.replica(0).start());
    one.and(other).unwrap();
    eventually("all programs have both again", async || {
        sets.iter().all(|set| {
            let topology = set.topology();
            let well = |node: &pointsman::topology::NodeStatus| node.health == Health::Up;
            topology.nodes.iter().all(well) && topology.nodes[0].standing == Standing::Primary
        })
    })
    .await;
    sleep(Duration::from_secs(2)).await;
    ended.store(true, Ordering::Relaxed);
    let counts: Vec<_> = cluster.servers().iter().zip(since).map(|(server, at)| logins(server, at)).collect();
    println!("{counts:?} logins of {PROGRAMS} programs at the primary and its replica");
    let needed = PROGRAMS * (1 + READERS + WRITERS);
    assert!(counts[0] > PROGRAMS, "the log has them: {counts:?}");
    assert!(counts.iter().all(|logins| *logins <= needed), "{counts:?}, and {needed} are enough");
    join_all(tasks).await;
}
