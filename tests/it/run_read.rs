//! Reads that their node fails: the retried ones, and their bounds.

use pointsman::testkit::wait::until;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use pointsman::config::{Fallback, ProbeSettings, ReadSettings};
use pointsman::health::Status;
use pointsman::prelude::*;
use pointsman::testkit::{Cluster, Server};
use pointsman::{Error, ReplicaSet, Role};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{
    checkout_within, fixture_with, patient_probes, pools_of, smuggle, start, urls_of, value,
};

/// A function that fails as a statement does that always conflicts.
const CONFLICT: &str = "CREATE FUNCTION conflict(after float DEFAULT 0) RETURNS int LANGUAGE plpgsql AS \
    $$ BEGIN PERFORM pg_sleep(after); RAISE EXCEPTION 'a conflict' USING ERRCODE = '40001'; END $$";

/// The nodes where a function ran, in the order of its runs.
#[derive(Debug, Default)]
struct Runs(Mutex<Vec<(String, Role)>>);

impl Runs {
    fn note(&self, conn: &Conn<Read>) -> usize {
        let mut runs = self.0.lock().unwrap();
        runs.push((conn.node().to_owned(), conn.role()));
        runs.len()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn on_primary(&self) -> usize {
        self.0.lock().unwrap().iter().filter(|(_, role)| *role == Role::Primary).count()
    }
}

/// Ends the session that runs it, as a server does to remove a backend.
const SUICIDE: &str = "SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(5)";

// --- bounds

/// A statement that always failed with 40001 ran ten thousand times until the deadline.
#[tokio::test]
async fn a_read_that_always_conflicts_is_given_up_after_its_retries() {
    let (_cluster, set) = fixture_with(2, CONFLICT, |config| config).await;
    let runs = Runs::default();
    let outcome: Result<usize, Error> = set
        .run_read(async |conn| {
            runs.note(conn);
            Ok(smuggle(conn, "SELECT conflict()").await?)
        })
        .await;
    println!("a read that always conflicts ran {} times", runs.count());
    outcome.expect_err("it always fails");
    assert_eq!(runs.count(), 1 + set.config().reads().retries as usize);
}

/// When every read fails, the retries of all together are bounded, not only those of each.
#[tokio::test]
async fn when_all_reads_conflict_the_retries_of_all_together_are_bounded() {
    let (_cluster, set) = fixture_with(1, CONFLICT, |config| config).await;
    let runs = Runs::default();
    let reads = 200;
    for _ in 0..reads / 10 {
        join_all((0..10).map(|_| {
            set.run_read(async |conn| -> Result<usize, Error> {
                runs.note(conn);
                Ok(smuggle(conn, "SELECT conflict()").await?)
            })
        }))
        .await;
    }
    println!("{reads} reads that always conflict ran {} times", runs.count());
    assert!(runs.count() <= reads + 100 + reads / 5, "{}", runs.count());
}

/// A statement that ends its session walked through the whole set, 400 times, also over the primary.
#[tokio::test]
async fn a_read_that_ends_its_sessions_is_sent_to_two_nodes_and_never_to_the_primary() {
    let (_cluster, set) = fixture_with(3, CONFLICT, |config| config).await;
    let runs = Runs::default();
    let outcome: Result<usize, Error> = set
        .run_read(async |conn| {
            runs.note(conn);
            Ok(smuggle(conn, SUICIDE).await?)
        })
        .await;
    println!("a read that ends its sessions ran {} times: {runs:?}", runs.count());
    outcome.expect_err("it ends its session");
    let mut nodes: Vec<_> = runs.0.lock().unwrap().iter().map(|(node, _)| node.clone()).collect();
    nodes.sort();
    nodes.dedup();
    assert_eq!((nodes.len(), runs.on_primary()), (2, 0), "{runs:?}");
    assert!(runs.count() <= 3, "{runs:?}");
}

/// With one replica the statement that had ended its session was sent to the primary at once, and again and again.
#[tokio::test]
async fn a_read_that_ends_its_sessions_ends_at_most_one_on_the_primary() {
    let (_cluster, set) = fixture_with(1, CONFLICT, |config| config).await;
    let runs = Runs::default();
    let outcome: Result<usize, Error> = set
        .run_read(async |conn| {
            runs.note(conn);
            Ok(smuggle(conn, SUICIDE).await?)
        })
        .await;
    println!("a read that ends its sessions ran {} times, with one replica: {runs:?}", runs.count());
    outcome.expect_err("it ends its session");
    assert!(runs.count() <= 3 && runs.on_primary() <= 1, "{runs:?}");
}

/// Sessions that end without an error message, as those of a crashed server do.
#[tokio::test]
async fn a_read_that_loses_its_session_on_two_nodes_is_not_sent_to_a_third() {
    let cluster = Cluster::builder().replicas(3).proxied().start().await.unwrap();
    let mut urls = Vec::new();
    for server in cluster.servers() {
        urls.push(server.proxied_url().await.unwrap());
    }
    let set = start(urls_of(urls).probe(patient_probes())).await;
    until("all is well", async || set.health().status == Status::Healthy).await.unwrap();
    let runs = Runs::default();
    let read = set.run_read(async |conn| -> Result<usize, Error> {
        runs.note(conn);
        Ok(smuggle(conn, "SELECT 'crashes', pg_sleep(30)").await?)
    });
    let crash = async {
        loop {
            for server in cluster.servers() {
                if runs_there(server, "crashes").await {
                    server.proxy().await.unwrap().reset().await.unwrap();
                    server.execute(&end_all("crashes")).await.unwrap();
                }
            }
        }
    };
    let outcome = tokio::select! {
        outcome = read => outcome,
        () = crash => unreachable!("it goes on until the read has ended"),
    };
    outcome.expect_err("its sessions end");
    println!("a read that crashes its backends ran {} times", runs.count());
    assert_eq!((runs.count(), runs.on_primary()), (2, 0), "{runs:?}");
}

/// The second run of a read that had ended its session was slow, so a third node ran it at the same time.
#[tokio::test]
async fn a_read_that_ended_its_session_is_not_tried_on_two_nodes_at_once() {
    let (_cluster, set) = fixture_with(3, CONFLICT, |config| config).await;
    let runs = Runs::default();
    let outcome: Result<usize, Error> = set
        .run_read(async |conn| {
            let statement = if runs.note(conn) == 1 { SUICIDE } else { "SELECT pg_sleep(0.5)" };
            Ok(smuggle(conn, statement).await?)
        })
        .await;
    outcome.expect("the second run is only slow");
    assert_eq!(runs.count(), 2, "{runs:?}");
}

/// Returns `true` if a statement runs at a server that contains these words.
async fn runs_there(server: &Server, words: &str) -> bool {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE {}", other_with(words));
    server.query_value(&sql).await.unwrap() != "0"
}

/// Ends all sessions that run such a statement.
fn end_all(words: &str) -> String {
    format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {}", other_with(words))
}

fn other_with(words: &str) -> String {
    format!("pid <> pg_backend_pid() AND state = 'active' AND query LIKE '%{words}%'")
}

// --- still repeated

/// The deadline of the checkout was that of the execution, too, so a long report was lost with its node.
#[tokio::test]
async fn a_read_that_ran_longer_than_a_checkout_may_take_is_repeated() {
    let reads = ReadSettings { hedge_budget: 0.0, ..ReadSettings::default() };
    let timeouts = checkout_within(Duration::from_millis(300));
    let (_cluster, set) = fixture_with(2, CONFLICT, |config| config.timeouts(timeouts).reads(reads)).await;
    for cause in ["its session is ended", "replay cancels it"] {
        let runs = Runs::default();
        let outcome: Result<usize, Error> = set
            .run_read(async |conn| {
                if runs.note(conn) > 1 {
                    return Ok(smuggle(conn, "SELECT 1").await?);
                }
                smuggle(conn, "SELECT pg_sleep(0.6)").await?;
                let last = if cause.starts_with("its") { SUICIDE } else { "SELECT conflict()" };
                Ok(smuggle(conn, last).await?)
            })
            .await;
        assert_eq!(outcome.unwrap_or_else(|error| panic!("{cause}: {error}")), 1);
        assert_eq!(runs.count(), 2, "{cause}");
    }
}

/// The node that had lost the read's session was avoided for good, though the other one had no connection available.
#[tokio::test]
async fn a_node_that_lost_a_session_serves_again_if_no_other_node_can() {
    let reads = ReadSettings { fallback: Fallback::Never, ..ReadSettings::default() };
    let (_cluster, set) = fixture_with(2, CONFLICT, |config| {
        config.pool(pools_of(1)).reads(reads).timeouts(checkout_within(Duration::from_secs(2)))
    })
    .await;
    let held = set.read().await.unwrap();
    let runs = Runs::default();
    let outcome: Result<usize, Error> = set
        .run_read(async |conn| {
            let first = runs.note(conn) == 1;
            Ok(smuggle(conn, if first { SUICIDE } else { "SELECT 1" }).await?)
        })
        .await;
    assert_eq!(outcome.expect("the node is well"), 1);
    assert!(runs.0.lock().unwrap().iter().all(|(node, _)| node != held.node()), "{runs:?}");
}

// --- slow is not dead

/// A set with two replicas whose usual times are known.
async fn warm(set: &ReplicaSet) {
    for _ in 0..300 {
        quick(set).await;
    }
}

async fn quick(set: &ReplicaSet) {
    let outcome: Result<usize, Error> = set.run_read(async |conn| Ok(smuggle(conn, "SELECT 1").await?)).await;
    outcome.expect("an answer");
}

async fn slow(set: &ReplicaSet, seconds: f64) {
    let sql = format!("SELECT pg_sleep({seconds})");
    let outcome: Result<usize, Error> = set.run_read(async |conn| Ok(smuggle(conn, &sql).await?)).await;
    outcome.expect("an answer");
}

/// The time that the caller's own function took was held against the server, and the read sent twice.
#[tokio::test]
async fn a_read_whose_own_code_is_slow_is_run_once() {
    let (_cluster, set) = fixture_with(2, CONFLICT, |config| config).await;
    warm(&set).await;
    let runs = Runs::default();
    for _ in 0..10 {
        let outcome: Result<usize, Error> = set
            .run_read(async |conn| {
                runs.note(conn);
                smuggle(conn, "SELECT 1").await?;
                sleep(Duration::from_millis(150)).await;
                Ok(smuggle(conn, "SELECT 2").await?)
            })
            .await;
        outcome.expect("an answer");
    }
    println!("10 reads whose function sleeps ran {} times", runs.count());
    assert!(runs.count() <= 12, "{}", runs.count());
}

/// Each slow read marked its node as suspected, which ranks below the primary: thousands of reads went there.
#[tokio::test]
async fn slow_reads_move_no_other_read_to_the_primary() {
    let reads = ReadSettings { hedge_budget: 0.0, ..ReadSettings::default() };
    let (_cluster, set) = fixture_with(1, CONFLICT, |config| config.reads(reads)).await;
    warm(&set).await;
    let before = set.health().nodes[0].reads;
    let probes_before = set.topology().version;
    let began = Instant::now();
    let slow_ones = async {
        for _ in 0..67 {
            slow(&set, 0.05).await;
        }
    };
    let mut slow_ones = std::pin::pin!(slow_ones);
    loop {
        tokio::select! {
            () = &mut slow_ones => break,
            _ = join_all((0..4).map(|_| quick(&set))) => {}
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let on_primary = set.health().nodes[0].reads - before;
    let rate = f64::from(u32::try_from(set.topology().version - probes_before).unwrap()) / seconds;
    println!("67 slow reads sent {on_primary} reads to the primary; {rate:.1} probes a second at two nodes");
    assert_eq!(on_primary, 0);
    // Two nodes are probed 2.5 times a second each, and a slow one once more.
    assert!(rate < 10.0, "{rate}");
}

/// Under `always`, the reads on a primary that hung stayed there until it was marked down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_primary_delays_no_read_that_a_replica_can_serve() {
    // No monitor marks it down while the test runs.
    let probe = ProbeSettings { timeout: Duration::from_secs(40), ..ProbeSettings::default() };
    let reads = ReadSettings {
        fallback: Fallback::Always,
        max_lag: Duration::from_secs(120),
        ..ReadSettings::default()
    };
    let (cluster, set) = fixture_with(1, CONFLICT, |config| config.reads(reads).probe(probe)).await;
    for _ in 0..20 {
        join_all((0..8).map(|_| quick(&set))).await;
    }
    cluster.primary().pause().await.unwrap();
    let stuck = AtomicU32::new(0);
    let lane = async |reads| {
        for _ in 0..reads {
            if timeout(Duration::from_secs(5), quick(&set)).await.is_err() {
                stuck.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    // All at once, and then a few after each other.
    join_all((0..75).map(|_| lane(1))).await;
    join_all((0..15).map(|_| lane(5))).await;
    cluster.primary().resume().await.unwrap();
    let stuck = stuck.into_inner();
    println!("of 150 reads {stuck} stayed on the primary that hangs");
    assert_eq!(stuck, 0);
    assert_eq!(value(&set.read().await.unwrap(), "SELECT 1").await.unwrap(), "1");
}
