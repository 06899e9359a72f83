//! More callers than connections, and servers that refuse more of them: order and rejection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use pointsman::config::WriteSettings;
use pointsman::testkit::Cluster;
use pointsman::testkit::wait::until;
use pointsman::{CheckoutError, ConnectError, IntentKind, ReplicaSet};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use crate::support::{
    backend, builder_of, checkout_within, in_use, pools_of, start, start_cluster, urls_of, value,
};

/// The results of one of many workers on a small pool.
#[derive(Debug, Default)]
struct Turns {
    served: u64,
    /// The most checkouts of others between its request and its own checkout.
    waited: u64,
}

#[derive(Default)]
struct Tally {
    checkouts: AtomicU64,
    over: AtomicBool,
}

/// Runs workers that read, return their connection and ask again at once, until one of them was served this often.
async fn crowd(set: &ReplicaSet, workers: usize, enough: u64) -> Vec<Turns> {
    let tally = Arc::new(Tally::default());
    let worker = |_| {
        let (set, tally) = (set.clone(), Arc::clone(&tally));
        tokio::spawn(async move {
            let mut turns = Turns::default();
            while !AtomicBool::load(&tally.over, Ordering::Relaxed) {
                let asked = AtomicU64::load(&tally.checkouts, Ordering::Relaxed);
                let conn = set.read().await.expect("its turn comes");
                turns.waited = turns.waited.max(tally.checkouts.fetch_add(1, Ordering::Relaxed) - asked);
                turns.served += 1;
                if turns.served >= enough {
                    tally.over.store(true, Ordering::Relaxed);
                }
                value(&conn, "SELECT 1").await.expect("a read");
            }
            turns
        })
    };
    join_all((0..workers).map(worker)).await.into_iter().map(|turns| turns.expect("no panic")).collect()
}

/// A worker that returned its connection and asked again overtook the waiting ones. Of 40 workers, some were served
/// hundreds of times and others never.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_of_a_small_pool_are_served_in_turn() {
    const WORKERS: usize = 40;
    let cluster = start_cluster(0).await;
    let set = start(builder_of(cluster.servers()).pool(pools_of(4))).await;
    let turns = crowd(&set, WORKERS, 50).await;
    let fewest = turns.iter().map(|turns| turns.served).min().unwrap();
    let longest = turns.iter().map(|turns| turns.waited).max().unwrap();
    println!("fewest turns {fewest} (most: 50), longest wait {longest} turns of others");
    assert!(fewest >= 40, "some had 50 turns, one had {fewest}");
    // Each of the others once, and those who are between their turn and the queue.
    assert!(longest <= 2 * WORKERS as u64, "one waited while others had {longest} turns");
}

/// One failed connect rejected all waiters of a busy pool. With the password rotated and a healthy session in use, 32
/// of 40 writers failed at once, and 102 logins were refused in a second.
#[tokio::test]
async fn after_a_password_change_all_callers_share_the_open_session_in_turn() {
    let cluster = Cluster::builder().proxied().start().await.unwrap();
    let url = cluster.primary().proxied_url().await.unwrap();
    // A short timeout, so that a rejection shows.
    let writes = WriteSettings { failover_wait: Duration::from_millis(50), ..WriteSettings::default() };
    let set = start(urls_of([url]).pool(pools_of(10)).writes(writes)).await;
    let held = set.write().await.unwrap();
    let works = backend(&held).await;
    cluster.primary().change_password("rotated").await.unwrap();
    let proxy = cluster.primary().proxy().await.unwrap();
    let before = proxy.accepted();

    let writers: Vec<_> = (0..40)
        .map(|_| {
            let set = set.clone();
            tokio::spawn(async move {
                let conn = set.write().await?;
                let served_by = backend(&conn).await;
                sleep(Duration::from_millis(5)).await;
                Ok::<_, CheckoutError>(served_by)
            })
        })
        .collect();
    sleep(Duration::from_millis(300)).await;
    drop(held);
    let outcomes = join_all(writers).await.into_iter().map(Result::unwrap);
    let (served, failed): (Vec<_>, Vec<_>) = outcomes.partition(Result::is_ok);
    let logins = proxy.accepted() - before;
    println!("{} writers served, {} sent away, {logins} logins", served.len(), failed.len());
    assert!(failed.is_empty(), "{} were sent away: {:?}", failed.len(), failed[0]);
    assert!(served.iter().all(|backend| backend.as_ref().is_ok_and(|backend| *backend == works)));
    assert!(logins <= 10, "{logins} logins were tried for one password");
    assert_eq!(in_use(&set), 0);
}

/// Tries again and again until a while is over.
async fn hammer<T>(set: &ReplicaSet, tries: impl AsyncFn(&ReplicaSet) -> T) -> Duration {
    let began = Instant::now();
    let worker = async || {
        while began.elapsed() < Duration::from_secs(3) {
            tries(set).await;
            yield_now().await;
        }
    };
    join_all((0..20).map(|_| worker())).await;
    began.elapsed()
}

/// The connects of a breaker with the default backoff: four within the first second, and one a second from there on.
fn few(elapsed: Duration) -> u64 {
    8 + 2 * elapsed.as_secs()
}

/// A replica with too many connections got 143 to 160 refused connects a second from one program.
#[tokio::test]
async fn a_replica_without_slots_gets_few_logins() {
    let cluster =
        Cluster::builder().replicas(1).setting("max_connections", "20").proxied().start().await.unwrap();
    let replica = cluster.replica(0);
    let urls = [cluster.primary().url(), replica.proxied_url().await.unwrap()];
    let set = start(urls_of(urls)).await;
    let exhausted = replica.exhaust_connections().await.unwrap();
    let proxy = replica.proxy().await.unwrap();
    let before = proxy.accepted();
    let elapsed = hammer(&set, async |set| {
        let conn = set.read().await.expect("the primary serves");
        value(&conn, "SELECT 1").await.expect("a read");
    })
    .await;
    let logins = proxy.accepted() - before;
    println!("{logins} logins within {elapsed:?}");
    assert!((1..=few(elapsed)).contains(&logins), "{logins} logins within {elapsed:?}");
    drop(exhausted);
    until("the replica serves again", async || {
        set.read().await.is_ok_and(|conn| conn.role() == pointsman::Role::Replica)
    })
    .await
    .unwrap();
}

/// A primary with too many connections got 340 to 370 refused connects a second, and its writers' error was "no
/// primary".
#[tokio::test]
async fn a_primary_without_slots_gets_few_logins_and_is_named() {
    let cluster = Cluster::builder().setting("max_connections", "20").proxied().start().await.unwrap();
    let url = cluster.primary().proxied_url().await.unwrap();
    let soon = Duration::from_millis(300);
    let writes = WriteSettings { failover_wait: soon, ..WriteSettings::default() };
    let set = start(urls_of([url]).timeouts(checkout_within(soon)).writes(writes)).await;
    let exhausted = cluster.primary().exhaust_connections().await.unwrap();
    let proxy = cluster.primary().proxy().await.unwrap();
    let before = proxy.accepted();
    let elapsed = hammer(&set, async |set| {
        let error = set.write().await.expect_err("there is no slot");
        let CheckoutError::CannotConnect { node, intent: IntentKind::Write, error: cause, .. } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(*node, set.config().nodes()[0].name());
        assert!(matches!(**cause, ConnectError::TooManyConnections(_)), "{error}");
        assert!(error.to_string().contains("53300"), "{error}");
    })
    .await;
    let logins = proxy.accepted() - before;
    println!("{logins} logins within {elapsed:?}");
    assert!((1..=few(elapsed)).contains(&logins), "{logins} logins within {elapsed:?}");
    drop(exhausted);
    until("there is room", async || set.write().await.is_ok()).await.unwrap();
}
