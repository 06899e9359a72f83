//! Changes of the configuration under traffic: kept, replaced and monitored nodes.

use pointsman::testkit::wait::until;
use std::time::Duration;

use futures_util::future::join_all;
use pointsman::config::{ConfigBuilder, PoolSettings, ReadSettings, TimeoutSettings, WriteSettings};
use pointsman::prelude::*;
use pointsman::testkit::Server;
use pointsman::topology::PrimaryStatus;
use pointsman::{CheckoutError, Error, ReplicaSet};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::support::{
    builder_of, checkout_within, fixture_with, pools_of, sessions, smuggle, urls_of, value,
};

const SOON: Duration = Duration::from_millis(300);

const TABLE: &str = "CREATE TABLE t (n int)";

async fn change(set: &ReplicaSet, builder: ConfigBuilder) -> pointsman::Reconfigured {
    set.reconfigure(builder.build().expect("valid")).await.expect("reconfigured")
}

/// A transaction on the primary that has written, and is not committed.
async fn unfinished(set: &ReplicaSet) -> Conn<Write> {
    let conn = set.write().await.unwrap();
    smuggle(&conn, "BEGIN").await.unwrap();
    smuggle(&conn, "INSERT INTO t VALUES (1)").await.unwrap();
    conn
}

async fn is_primary(set: &ReplicaSet, server: &Server) {
    let port = format!(":{}", server.port());
    until(
        "it is the primary",
        async || matches!(&set.topology().primary, PrimaryStatus::One { node, .. } if node.ends_with(&port)),
    )
    .await
    .unwrap();
}

// --- connections in use stay monitored

/// A change of any setting rebuilt the nodes, and no monitor watched the earlier sessions: a COMMIT on the fenced
/// primary succeeded.
#[tokio::test]
async fn a_session_of_before_a_change_cannot_commit_on_a_primary_that_was_fenced() {
    let (cluster, set) = fixture_with(1, TABLE, |config| config).await;
    let conn = unfinished(&set).await;
    change(&set, builder_of(cluster.servers()).pool(pools_of(7))).await;
    assert!(!conn.is_closed(), "it goes on until its node is fenced");
    cluster.replica(0).promote().await.unwrap();
    is_primary(&set, cluster.replica(0)).await;
    until("its connection ends", async || conn.is_closed()).await.unwrap();
    smuggle(&conn, "COMMIT").await.expect_err("the primary was fenced");
    assert_eq!(cluster.primary().query_value("SELECT count(*) FROM t").await.unwrap(), "0");
}

/// A removed primary was no longer monitored: its sessions went on writing there after another one had taken over.
#[tokio::test]
async fn a_primary_that_was_removed_is_fenced_when_another_one_takes_over() {
    let (cluster, set) = fixture_with(1, TABLE, |config| config).await;
    let conn = unfinished(&set).await;
    let changed = change(&set, builder_of([cluster.replica(0)])).await;
    assert_eq!((changed.removed.len(), changed.in_use()), (1, 1));
    smuggle(&conn, "INSERT INTO t VALUES (2)").await.expect("it finishes what it has");
    cluster.replica(0).promote().await.unwrap();
    is_primary(&set, cluster.replica(0)).await;
    until("its connection ends", async || conn.is_closed()).await.unwrap();
    smuggle(&conn, "COMMIT").await.expect_err("the primary was fenced");
    drop(conn);
    changed.drained().await;
    drop(set.write().await.expect("the new primary serves"));
}

/// The call returned at once, although a connection was in use and went on.
#[tokio::test]
async fn close_waits_for_connections_from_before_a_change_and_then_ends_them() {
    let timeouts = TimeoutSettings { shutdown: SOON, ..TimeoutSettings::default() };
    let (cluster, set) = fixture_with(1, TABLE, |config| config).await;
    let (changed, removed) = (set.write().await.unwrap(), set.read().await.unwrap());
    change(&set, builder_of(cluster.servers()).pool(pools_of(7)).timeouts(timeouts.clone())).await;
    change(&set, builder_of([cluster.primary()]).pool(pools_of(7)).timeouts(timeouts)).await;
    let error = set.close().await.unwrap_err();
    assert!(matches!(error, Error::Close { connections: 2, .. }), "{error}");
    for outcome in [value(&changed, "SELECT 1").await, value(&removed, "SELECT 1").await] {
        outcome.expect_err("it was closed");
    }
}

// --- no interruption meanwhile

/// Reads and writes in lanes until they are stopped; the errors.
async fn traffic(set: &ReplicaSet, mut end: watch::Receiver<bool>) -> Vec<String> {
    let mut errors = Vec::new();
    while !*end.borrow_and_update() {
        let read = async { value(&set.read().await?, "SELECT 1").await.map_err(Error::from) };
        let write = async { value(&set.write().await?, "SELECT 1").await.map_err(Error::from) };
        let (read, write) = tokio::join!(read, write);
        errors.extend([read, write].into_iter().filter_map(|outcome| outcome.err().map(|e| e.to_string())));
        sleep(Duration::from_millis(1)).await;
    }
    errors
}

/// Each change began with "there is no primary", which is an alert, and every call waited for a probe.
#[tokio::test]
async fn a_change_of_settings_never_leaves_the_set_without_a_primary() {
    let name = |config: ConfigBuilder| config.application_name("steady");
    let (cluster, set) = fixture_with(2, TABLE, name).await;
    let monitors = "SELECT string_agg(pid::text, ',' ORDER BY pid) FROM pg_stat_activity \
        WHERE application_name = 'steady' AND query LIKE '%pg_is_in_recovery%'";
    let monitor = cluster.primary().query_value(monitors).await.unwrap();
    let mut topology = set.watch();
    topology.borrow_and_update();
    let (end, ended) = watch::channel(false);
    let changes = async {
        for i in 0..10 {
            let reads = ReadSettings { max_fallback: 5 + i, ..ReadSettings::default() };
            let pool = PoolSettings { max_size: 5 + i, ..PoolSettings::default() };
            let timeouts = checkout_within(Duration::from_secs(3 + u64::from(i)));
            let config = builder_of(cluster.servers()).pool(pool).reads(reads).timeouts(timeouts);
            let changed = change(&set, name(config)).await;
            assert_eq!((changed.added.len(), changed.changed.len(), changed.removed.len()), (0, 3, 0));
            sleep(Duration::from_millis(20)).await;
            changed.drained().await;
        }
        end.send_replace(true);
    };
    let (errors, ()) = tokio::join!(join_all((0..8).map(|_| traffic(&set, ended.clone()))), changes);
    assert_eq!(errors.concat(), Vec::<String>::new());
    assert!(!topology.has_changed().unwrap(), "nothing changed for its users: {:#?}", topology.borrow());
    assert_eq!(cluster.primary().query_value(monitors).await.unwrap(), monitor, "its monitor is the same");
}

/// Credentials change while both old and new ones are valid: the old ones are withdrawn when unused.
#[tokio::test]
async fn a_change_of_the_credentials_loses_no_read_and_no_write() {
    let (cluster, set) = fixture_with(1, TABLE, |config| config).await;
    let (end, ended) = watch::channel(false);
    let changes = async {
        for user in ["one", "two", "three"] {
            let create = format!("CREATE ROLE {user} LOGIN PASSWORD 'new' IN ROLE app");
            cluster.primary().execute(&create).await.unwrap();
            cluster.wait_caught_up().await.unwrap();
            let url = |server: &Server| {
                let (_, place) =
                    server.url().split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
                format!("postgres://{user}:new@{place}")
            };
            let changed = change(&set, urls_of(cluster.servers().iter().map(url))).await;
            assert_eq!(changed.changed.len(), 2);
            changed.drained().await;
        }
        end.send_replace(true);
    };
    let (errors, ()) = tokio::join!(join_all((0..8).map(|_| traffic(&set, ended.clone()))), changes);
    assert_eq!(errors.concat(), Vec::<String>::new());
    assert_eq!(value(&set.read().await.unwrap(), "SELECT current_user").await.unwrap(), "three");
}

/// It comes back to its monitor and its statistics, and serves at once, beside the sessions that stayed open.
#[tokio::test]
async fn a_node_that_was_removed_by_mistake_is_back_at_once() {
    let (cluster, set) = fixture_with(1, TABLE, |config| config).await;
    let (read, write) = (set.read().await.unwrap(), unfinished(&set).await);
    let reads = set.health().nodes[1].reads;
    change(&set, builder_of([cluster.primary()])).await;
    change(&set, builder_of([cluster.replica(0)])).await;
    let changed = change(&set, builder_of(cluster.servers())).await;
    assert_eq!(changed.removed, Vec::<String>::new());
    for _ in 0..10 {
        let conn = timeout(SOON * 10, set.read()).await.expect("at once").expect("a connection");
        assert_eq!(conn.node(), read.node());
        assert_eq!(value(&conn, "SELECT 1").await.unwrap(), "1");
    }
    assert_eq!(set.health().nodes[1].reads, reads + 10);
    drop(timeout(SOON * 10, set.write()).await.expect("at once").expect("a connection"));
    smuggle(&write, "COMMIT").await.expect("its node was never fenced");
    assert_eq!(value(&read, "SELECT 1").await.unwrap(), "1");
}

// --- limits

/// Each change came with a new set of permits: twice as many reads on the primary, and twice as many connections.
#[tokio::test]
async fn held_connections_count_against_the_limits_after_a_change() {
    let reads = |max_lag| {
        let reads = ReadSettings { max_fallback: 2, max_lag, ..ReadSettings::default() };
        move |config: ConfigBuilder| {
            config.reads(reads).timeouts(checkout_within(SOON)).application_name("limited")
        }
    };
    let (cluster, set) = fixture_with(1, TABLE, reads(Duration::from_secs(10))).await;
    cluster.replica(0).kill().await.unwrap();
    until("reads fall back", async || set.topology().reads_on_primary_only()).await.unwrap();
    let held = [set.read().await.unwrap(), set.read().await.unwrap()];
    change(&set, reads(Duration::from_secs(20))(builder_of(cluster.servers()))).await;
    let error = set.read().await.expect_err("two read from the primary already");
    assert!(matches!(error, CheckoutError::FallbackExhausted { limit: 2 }), "{error}");
    drop(held);
    drop(set.read().await.expect("a place"));

    let pool = |idle| PoolSettings {
        max_size: 2,
        idle_timeout: Duration::from_secs(idle),
        ..PoolSettings::default()
    };
    let with = |idle| reads(Duration::from_secs(20))(builder_of(cluster.servers())).pool(pool(idle));
    change(&set, with(60)).await;
    let held = [set.write().await.unwrap(), set.write().await.unwrap()];
    let before = sessions(cluster.primary(), "limited").await;
    change(&set, with(61)).await;
    let error = set.write().await.expect_err("two are in use");
    assert!(matches!(error, CheckoutError::Exhausted { max_size: 2, .. }), "{error}");
    assert!(sessions(cluster.primary(), "limited").await <= before);
    drop(held);
    drop(set.write().await.expect("one was returned"));
}

/// As many callers as allowed waited for a primary, and as many again after each change.
#[tokio::test]
async fn callers_that_wait_for_a_primary_count_after_a_change() {
    let writes = |failover_wait| WriteSettings { max_waiters: 2, failover_wait, ..WriteSettings::default() };
    let wait = Duration::from_secs(10);
    let (cluster, set) = fixture_with(1, TABLE, |config| config.writes(writes(wait))).await;
    cluster.primary().kill().await.unwrap();
    until("there is no primary", async || set.topology().primary == PrimaryStatus::None).await.unwrap();
    let mut waiting = [Box::pin(set.write()), Box::pin(set.write())];
    for waiting in &mut waiting {
        assert!(futures_util::poll!(waiting).is_pending(), "it has its place");
    }
    change(&set, builder_of(cluster.servers()).writes(writes(wait * 2))).await;
    let error = set.write().await.expect_err("two wait already");
    assert!(matches!(error, CheckoutError::TooManyWaiters { limit: 2 }), "{error}");
    cluster.replica(0).promote().await.unwrap();
    for waiting in waiting {
        waiting.await.expect("the new primary serves");
    }
}
