//! The pools at their limits: exhausted, refused, cut off, too old, and left by their callers.

use pointsman::testkit::wait::until;
use std::time::Duration;

use futures_util::future::join_all;
use pointsman::config::{PoolSettings, TimeoutSettings};
use pointsman::prelude::*;
use pointsman::testkit::Cluster;
use pointsman::topology::Health;
use pointsman::{CheckoutError, ConnectError, NodeFailure, ReplicaSet, Role};
use tokio::time::{Instant, timeout};

use crate::support::{
    backend, builder_of, checkout_within, connect, fixture, in_use, pools_of, sessions, start, start_cluster,
    urls_of, value,
};

const SOON: Duration = Duration::from_millis(300);

#[track_caller]
fn assert_exhausted(error: &CheckoutError, name: &str, expected: &'static str) {
    let CheckoutError::Exhausted { node, intent, waited, max_size: 2, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((node.as_str(), intent.as_str()), (name, expected));
    assert!(*waited >= SOON && *waited < SOON * 5, "{waited:?}");
    assert!(error.to_string().contains("`pool.max_size` (2)"), "{error}");
}

#[tokio::test]
async fn an_exhausted_pool_fails_in_time_and_marks_no_node_down() {
    let cluster = start_cluster(0).await;
    let set = start(builder_of(cluster.servers()).pool(pools_of(2)).timeouts(checkout_within(SOON))).await;
    let name = set.config().nodes()[0].name().to_owned();
    let held = [set.write().await.unwrap(), set.write().await.unwrap()];
    assert_exhausted(&set.write().await.unwrap_err(), &name, "write");
    let reads = [set.read().await.unwrap(), set.read().await.unwrap()];
    assert_exhausted(&set.read().await.unwrap_err(), &name, "read");

    let node = &set.health().nodes[0];
    assert_eq!((node.status.health, node.in_use), (Health::Up, 4));
    assert!(node.status.serves_reads && node.status.serves_writes);
    drop(held);
    drop(set.write().await.expect("one was returned"));
    drop(reads);
    until("all are returned", async || in_use(&set) == 0).await.unwrap();
}

/// A burst of reads on the replicas became load on the primary, though every replica was healthy.
#[tokio::test]
async fn an_exhausted_replica_is_no_reason_to_read_from_the_primary() {
    let cluster = start_cluster(1).await;
    let set = start(builder_of(cluster.servers()).pool(pools_of(2)).timeouts(checkout_within(SOON))).await;
    let held = [set.read().await.unwrap(), set.read().await.unwrap()];
    let waiting = join_all((0..20).map(|_| set.read()));
    for outcome in waiting.await {
        assert_exhausted(&outcome.unwrap_err(), held[0].node(), "read");
    }
    assert_eq!(set.health().nodes[0].reads, 0, "the primary served none");
    drop(held);
    assert_eq!(set.read().await.unwrap().role(), Role::Replica);
}

#[tokio::test]
async fn a_waiting_caller_gets_the_connection_that_is_returned() {
    let cluster = start_cluster(1).await;
    let set = start(builder_of(cluster.servers()).pool(pools_of(2))).await;
    let work = (0..100).map(|n| {
        let set = &set;
        async move {
            let conn = set.read().await.expect("its turn comes");
            value(&conn, &format!("SELECT {n} FROM pg_sleep(0.01)")).await.expect("a read")
        }
    });
    let answers = join_all(work).await;
    assert_eq!(answers, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(set.health().nodes[1].connections <= 2);
}

#[tokio::test]
async fn a_primary_without_slots_has_its_own_health_and_its_replicas_go_on() {
    let cluster = Cluster::builder().replicas(1).setting("max_connections", "20").start().await.unwrap();
    let set = start(builder_of(cluster.servers()).timeouts(checkout_within(SOON))).await;
    let conn = set.write().await.unwrap();
    let exhausted = cluster.primary().exhaust_connections().await.unwrap();

    diesel::sql_query("CREATE TABLE t (n int)").execute(&conn).await.expect("what is connected works");
    assert_eq!(set.health().nodes[0].status.health, Health::Up, "its monitor is connected as well");
    assert_eq!(set.read().await.unwrap().role(), Role::Replica);

    let late = start(
        builder_of(cluster.servers())
            .timeouts(checkout_within(SOON))
            .writes(pointsman::config::WriteSettings { failover_wait: SOON, ..Default::default() }),
    )
    .await;
    assert_eq!(late.health().nodes[0].status.health, Health::TooManyConnections);
    let error = late.write().await.unwrap_err();
    let CheckoutError::NoPrimary { failures, .. } = &error else { panic!("{error}") };
    assert!(matches!(connect_error(&failures[0]), ConnectError::TooManyConnections(_)), "{error}");
    assert!(error.to_string().contains("53300"), "{error}");

    drop(exhausted);
    until("there is room", async || late.write().await.is_ok()).await.unwrap();
}

/// A caller that waits for a slot takes the next connection that is returned, instead of failing.
#[tokio::test]
async fn callers_of_a_server_without_slots_share_the_open_connections() {
    let cluster = Cluster::builder().setting("max_connections", "20").start().await.unwrap();
    let set = connect(&cluster).await;
    let conn = set.write().await.unwrap();
    let _exhausted = cluster.primary().exhaust_connections().await.unwrap();
    let waiting = tokio::spawn({
        let set = set.clone();
        async move { set.write().await.map(drop) }
    });
    // It is refused a new connection, and waits on.
    assert!(timeout(SOON, async { value(&conn, "SELECT 1 FROM pg_sleep(0.2)").await }).await.is_ok());
    assert!(!waiting.is_finished());
    drop(conn);
    waiting.await.unwrap().expect("the one that was returned");
}

fn connect_error(failure: &NodeFailure) -> &ConnectError {
    failure.error.as_deref().unwrap_or_else(|| panic!("{failure}"))
}

#[tokio::test]
async fn a_wrong_password_is_a_rejected_login_and_stays_secret() {
    let cluster = start_cluster(0).await;
    let url = cluster.primary().wrong_password_url();
    let writes = pointsman::config::WriteSettings { failover_wait: SOON, ..Default::default() };
    let set = start(urls_of([url]).timeouts(checkout_within(SOON)).writes(writes)).await;
    let (read, write) = (set.read().await.unwrap_err(), set.write().await.unwrap_err());
    for error in [&read, &write] {
        let (CheckoutError::NoNode { failures, .. } | CheckoutError::NoPrimary { failures, .. }) = error
        else {
            panic!("{error}");
        };
        let refused = connect_error(&failures[0]);
        assert!(
            matches!(refused, ConnectError::LoginRejected { sqlstate, .. } if sqlstate.to_string() == "28P01")
        );
        assert!(error.to_string().contains("check user, password"), "{error}");
    }
    let report = serde_json::to_string(&set.health()).unwrap();
    assert_eq!(set.health().nodes[0].status.health, Health::LoginRejected);
    assert!(report.contains("28P01"), "{report}");
    for shown in [format!("{read:?} {read}"), format!("{write:?} {write}"), report, format!("{set:?}")] {
        assert!(!shown.contains("sesame"), "{shown}");
    }
}

#[tokio::test]
async fn connections_that_died_with_a_restart_are_never_handed_out() {
    let (cluster, set) = fixture(1).await;
    let warm: Vec<_> = join_all((0..8).map(|_| set.read())).await.into_iter().map(Result::unwrap).collect();
    drop(warm);
    drop(set.write().await.unwrap());
    for server in cluster.servers() {
        server.restart().await.unwrap();
    }
    healthy(&set).await;
    for _ in 0..50 {
        let conn = set.read().await.expect("a connection");
        value(&conn, "SELECT 1").await.expect("one that lives");
        let conn = set.write().await.expect("a connection");
        value(&conn, "SELECT 1").await.expect("one that lives");
    }
}

/// A session that an administrator ended is noticed by its own connection, without a query.
#[tokio::test]
async fn sessions_that_were_terminated_are_never_handed_out() {
    let cluster = start_cluster(0).await;
    let set = start(builder_of(cluster.servers()).application_name("terminated")).await;
    let warm: Vec<_> = join_all((0..5).map(|_| set.write())).await.into_iter().map(Result::unwrap).collect();
    let mut dead = Vec::new();
    for conn in &warm {
        dead.push(backend(conn).await);
    }
    drop(warm);
    let terminate = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM unnest('{{{}}}'::int[]) AS pid",
        dead.join(",")
    );
    assert_eq!(cluster.primary().query_value(&terminate).await.unwrap(), "5");
    let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY('{{{}}}')", dead.join(","));
    until("they are gone", async || cluster.primary().query_value(&gone).await.unwrap() == "0")
        .await
        .unwrap();
    healthy(&set).await;
    for _ in 0..50 {
        let conn = set.write().await.unwrap();
        assert!(!dead.contains(&backend(&conn).await));
    }
}

async fn healthy(set: &ReplicaSet) {
    until("the set is healthy", async || {
        set.health().status == pointsman::health::Status::Healthy
            && set.read().await.is_ok()
            && set.write().await.is_ok()
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn connections_are_replaced_at_the_end_of_their_life() {
    let cluster = start_cluster(0).await;
    let pool = PoolSettings { max_lifetime: Duration::from_millis(500), lifetime_jitter: 0.0, ..pools_of(1) };
    let set = start(builder_of(cluster.servers()).pool(pool).application_name("mortal")).await;
    let first = backend(&set.read().await.unwrap()).await;
    until("another one serves", async || backend(&set.read().await.unwrap()).await != first).await.unwrap();
    until("and the old one is gone", async || sessions(cluster.primary(), "mortal").await <= 2)
        .await
        .unwrap();

    // One that is in use is left alone, and replaced when it comes back.
    let held = set.read().await.unwrap();
    let second = backend(&held).await;
    let until = Instant::now() + Duration::from_millis(700);
    while Instant::now() < until {
        assert_eq!(backend(&held).await, second);
    }
    drop(held);
    assert_ne!(backend(&set.read().await.unwrap()).await, second);
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let cluster = start_cluster(0).await;
    let pool = PoolSettings { idle_timeout: Duration::from_millis(200), ..pools_of(8) };
    let set = start(builder_of(cluster.servers()).pool(pool).application_name("idle")).await;
    let burst: Vec<_> = join_all((0..8).map(|_| set.read())).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(set.health().nodes[0].connections, 8);
    drop(burst);
    until("the burst is over", async || set.health().nodes[0].connections == 0).await.unwrap();
    until("also for the server", async || sessions(cluster.primary(), "idle").await == 1).await.unwrap();
    drop(set.read().await.expect("a new one"));
}

#[tokio::test]
async fn cancelled_checkouts_leave_no_session() {
    let cluster = start_cluster(1).await;
    let set = start(
        builder_of(cluster.servers()).pool(pools_of(2)).timeouts(checkout_within(Duration::from_secs(30))),
    )
    .await;
    let held = [set.read().await.unwrap(), set.read().await.unwrap()].map(|conn| (conn, set.clone()));
    let waiting: Vec<_> = (0..200)
        .map(|_| {
            let set = set.clone();
            tokio::spawn(async move { set.read().await.map(drop) })
        })
        .collect();
    tokio::task::yield_now().await;
    let (gone, patient) = waiting.split_at(190);
    gone.iter().for_each(tokio::task::JoinHandle::abort);
    drop(held);
    for waiter in patient {
        until("the patient ones are served", async || waiter.is_finished()).await.unwrap();
    }
    until("all are returned", async || in_use(&set) == 0).await.unwrap();
    // Also those that go away while a connection is made for them.
    for _ in 0..200 {
        let _ = timeout(Duration::from_micros(200), set.write()).await;
    }
    until("all are returned", async || in_use(&set) == 0).await.unwrap();
    let full = [set.write().await.unwrap(), set.write().await.unwrap()];
    assert_ne!(backend(&full[0]).await, backend(&full[1]).await);
    assert!(set.health().nodes.iter().all(|node| node.connections <= 4));
}

#[tokio::test]
async fn statement_timeouts_are_those_of_the_intent() {
    let cluster = start_cluster(0).await;
    let timeouts = TimeoutSettings {
        read_statement: Some(Duration::from_millis(150)),
        write_statement: Some(Duration::from_secs(7)),
        ..TimeoutSettings::default()
    };
    let set = start(builder_of(cluster.servers()).timeouts(timeouts)).await;
    let (read, write) = (set.read().await.unwrap(), set.write().await.unwrap());
    value(&read, "SELECT 1 FROM pg_sleep(60)").await.unwrap_err();
    assert_eq!(read.last_sqlstate(), Some(pointsman::SqlState::QUERY_CANCELED));
    assert_eq!(value(&write, "SELECT current_setting('statement_timeout')").await.unwrap(), "7s");
}
