//! The replica set on real clusters: the serving nodes at the start, in the middle and at the end.

use pointsman::testkit::wait::until;
use std::collections::BTreeSet;
use std::time::Duration;

use pointsman::config::{ProbeSettings, ReadSettings, WriteSettings};
use pointsman::health::Status;
use pointsman::prelude::*;
use pointsman::testkit::Cluster;
use pointsman::topology::{Health, NodeRole, PrimaryStatus};
use pointsman::{CheckoutError, Config, Error, ReplicaSet, Role};
use tokio::time::{Instant, timeout};

use crate::support::{
    backend, builder_of, checkout_within, connect, fixture, in_use, patient_probes, pools_of, sessions,
    start, start_cluster, urls_of, value,
};

// --- the serving node

#[tokio::test]
async fn reads_go_to_replicas_and_writes_to_the_primary() {
    let (_cluster, set) = fixture(2).await;
    let mut served = BTreeSet::new();
    for _ in 0..50 {
        let conn = set.read().await.expect("a read connection");
        assert_eq!(conn.role(), Role::Replica);
        served.insert(conn.node().to_owned());
        assert_eq!(value(&conn, "SELECT pg_is_in_recovery()").await.unwrap(), "true");
    }
    assert_eq!(served.len(), 2, "both replicas serve: {served:?}");
    let conn = set.write().await.expect("a write connection");
    assert_eq!((conn.role(), conn.node()), (Role::Primary, set.config().nodes()[0].name()));
    diesel::sql_query("CREATE TABLE t (n int)").execute(&conn).await.expect("a write");
    drop(conn);
    assert!(!set.health().reads_on_primary_only);
    set.close().await.expect("everything was returned");
}

/// As an extractor of a web framework does, whose type parameter states a handler's needs.
async fn role_for<I: Intent>(set: &ReplicaSet) -> Role {
    set.checkout::<I>().await.expect("a connection").role()
}

#[tokio::test]
async fn generic_code_checks_out_what_its_intent_says() {
    let (cluster, set) = fixture(1).await;
    assert_eq!(role_for::<Read>(&set).await, Role::Replica);
    let spawned = {
        let set = set.clone();
        tokio::spawn(async move { role_for::<Write>(&set).await })
    };
    assert_eq!(spawned.await.expect("no panic"), Role::Primary);
    cluster.primary().kill().await.expect("it is killed");
    let writes = pointsman::WriteOptions::new().no_wait();
    until("the loss is known", async || set.write_with(&writes).await.is_err()).await.unwrap();
    assert_eq!(role_for::<Read>(&set).await, Role::Replica);
    set.close().await.expect("everything was returned");
    assert!(matches!(set.checkout::<Write>().await, Err(CheckoutError::Closed)));
}

#[tokio::test]
async fn with_database_url_alone_one_server_does_everything_and_that_is_visible() {
    let cluster = start_cluster(0).await;
    let config = Config::from_sources(None, [("DATABASE_URL".to_owned(), cluster.primary().url())]).unwrap();
    let set = ReplicaSet::connect(config).await.unwrap();

    let conn = set.write().await.unwrap();
    diesel::sql_query("CREATE TABLE t AS SELECT 7 AS n").execute(&conn).await.unwrap();
    let node = conn.node().to_owned();
    drop(conn);
    let conn = set.read().await.unwrap();
    assert_eq!(value(&conn, "SELECT n FROM t").await.unwrap(), "7");
    assert_eq!((conn.role(), conn.node()), (Role::Primary, node.as_str()));

    let report = set.health();
    assert!(report.reads_on_primary_only);
    assert_eq!(report.status, Status::Healthy, "nothing is missing that was configured: {report:?}");
    assert_eq!((report.nodes[0].reads, report.nodes[0].writes, report.nodes[0].in_use), (1, 1, 1));
}

#[tokio::test]
async fn any_number_of_replicas_share_the_reads() {
    let (_cluster, set) = fixture(4).await;
    let reads = || set.health().nodes.iter().map(|node| node.reads).collect::<Vec<_>>();
    // A replica whose first answer was slow gets its share when it has shown that it can do better.
    until("each replica serves its share", async || {
        drop(set.read().await.unwrap());
        reads()[1..].iter().all(|reads| *reads >= 10)
    })
    .await
    .unwrap();
    assert_eq!(reads()[0], 0, "the primary serves none");
}

#[tokio::test]
async fn roles_are_discovered_whatever_the_configuration_says() {
    let cluster = start_cluster(1).await;
    let swapped = [cluster.replica(0), cluster.primary()];
    let set = start(builder_of(swapped)).await;
    let write = set.write().await.unwrap();
    assert_eq!(value(&write, "SELECT pg_is_in_recovery()").await.unwrap(), "false");
    assert_eq!(write.node(), set.config().nodes()[1].name());
    let read = set.read().await.unwrap();
    assert_eq!((read.role(), read.node()), (Role::Replica, set.config().nodes()[0].name()));
    let by_node: Vec<_> = set.topology().nodes.iter().map(|node| node.role).collect();
    assert_eq!(by_node, [NodeRole::Replica, NodeRole::Primary]);
}

#[tokio::test]
async fn pools_are_per_node_and_intent() {
    let cluster = start_cluster(2).await;
    let set = start(builder_of(cluster.servers()).pool(pools_of(1))).await;
    let (one, two) = (set.read().await.unwrap(), set.read().await.unwrap());
    assert_ne!(one.node(), two.node(), "the first one's pool has none left");
    drop(set.write().await.expect("writes have a pool of their own"));

    let alone = start(builder_of([cluster.primary()]).pool(pools_of(1))).await;
    let (read, write) = (alone.read().await.unwrap(), alone.write().await.unwrap());
    assert_ne!(backend(&read).await, backend(&write).await);
    assert_eq!((alone.health().nodes[0].in_use, alone.health().nodes[0].connections), (2, 2));
}

// --- the start

#[tokio::test]
async fn a_replica_that_is_down_at_the_start_stops_neither_the_start_nor_a_read() {
    let cluster = start_cluster(2).await;
    cluster.replica(0).kill().await.unwrap();
    let set = connect(&cluster).await;
    for _ in 0..100 {
        let conn = set.read().await.expect("the other replica serves");
        assert_eq!(conn.node(), set.config().nodes()[2].name());
        value(&conn, "SELECT 1").await.expect("a read");
    }
    drop(set.write().await.expect("the primary serves"));
    let report = set.health();
    assert_eq!((report.status, report.nodes[1].status.health), (Status::Degraded, Health::Down));

    cluster.replica(0).start().await.unwrap();
    until("the replica serves", async || {
        drop(set.read().await.unwrap());
        set.health().nodes[1].reads > 0
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_replica_that_hangs_at_the_start_stops_neither_the_start_nor_a_read() {
    let cluster = start_cluster(2).await;
    cluster.replica(0).pause().await.unwrap();
    let set = connect(&cluster).await;
    for _ in 0..100 {
        let conn = set.read().await.expect("the other replica serves");
        assert_eq!(conn.node(), set.config().nodes()[2].name());
    }
    cluster.replica(0).resume().await.unwrap();
    until("the replica serves", async || {
        drop(set.read().await.unwrap());
        set.health().nodes[1].reads > 0
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_set_that_started_without_servers_fails_in_time_and_works_once_they_are_up() {
    let cluster = start_cluster(1).await;
    for server in cluster.servers() {
        server.kill().await.unwrap();
    }
    let writes = WriteSettings { failover_wait: Duration::from_millis(300), ..WriteSettings::default() };
    let set = start(
        builder_of(cluster.servers()).timeouts(checkout_within(Duration::from_millis(300))).writes(writes),
    )
    .await;
    let began = Instant::now();
    let error = set.read().await.unwrap_err();
    let CheckoutError::NoNode { failures, .. } = &error else { panic!("{error}") };
    assert_eq!(failures.len(), 2, "{error}");
    let error = set.write().await.unwrap_err();
    assert!(matches!(&error, CheckoutError::NoPrimary { failures, .. } if failures.len() == 2), "{error}");
    assert!(began.elapsed() < Duration::from_secs(3), "two deadlines of 300 ms: {:?}", began.elapsed());
    assert_eq!((set.health().status, &set.topology().primary), (Status::Unhealthy, &PrimaryStatus::None));

    for server in cluster.servers() {
        server.start().await.unwrap();
    }
    until("both intents are served", async || set.read().await.is_ok() && set.write().await.is_ok())
        .await
        .unwrap();
    until("the replica serves", async || set.read().await.unwrap().role() == Role::Replica).await.unwrap();
    assert_eq!(set.health().status, Status::Healthy);
}

// --- checkout

/// While the network carries nothing, every round trip waits for ever.
#[tokio::test]
async fn a_checkout_makes_no_round_trip() {
    let cluster = Cluster::builder().proxied().start().await.unwrap();
    let proxy = cluster.primary().proxy().await.unwrap();
    let set = start(
        urls_of([cluster.primary().proxied_url().await.unwrap()])
            .pool(pools_of(1))
            .probe(ProbeSettings { interval: Duration::from_secs(5), ..patient_probes() })
            .reads(ReadSettings { max_lag: Duration::from_secs(60), ..ReadSettings::default() }),
    )
    .await;
    for warm in [set.read().await.map(drop), set.write().await.map(drop)] {
        warm.unwrap();
    }
    proxy.stall().await.unwrap();
    for _ in 0..1000 {
        drop(timeout(Duration::from_secs(2), set.read()).await.expect("at once").unwrap());
        drop(timeout(Duration::from_secs(2), set.write()).await.expect("at once").unwrap());
    }
    proxy.pass().await.unwrap();
    let conn = set.read().await.unwrap();
    assert_eq!(value(&conn, "SELECT 1").await.unwrap(), "1", "it is a connection that works");
    assert_eq!(set.health().nodes[0].connections, 2, "and there was no other one");
}

// --- the end

#[tokio::test]
async fn close_waits_for_connections_in_use_and_then_refuses_checkouts() {
    let cluster = start_cluster(1).await;
    let set = start(builder_of(cluster.servers()).application_name("closing")).await;
    let conn = set.write().await.unwrap();
    let closing = tokio::spawn({
        let set = set.clone();
        async move { set.close().await }
    });
    until("the set refuses", async || matches!(set.read().await, Err(CheckoutError::Closed))).await.unwrap();
    diesel::sql_query("CREATE TABLE t (n int)").execute(&conn).await.expect("what is in use goes on");
    assert!(!closing.is_finished());
    drop(conn);
    closing.await.unwrap().expect("everything was returned");
    assert!(matches!(set.write().await, Err(CheckoutError::Closed)));
    for server in cluster.servers() {
        until("no session is left", async || sessions(server, "closing").await == 0).await.unwrap();
    }
}

#[tokio::test]
async fn close_gives_a_leaked_connection_up_after_its_limit() {
    let cluster = start_cluster(0).await;
    let limit = Duration::from_millis(200);
    let timeouts = pointsman::config::TimeoutSettings { shutdown: limit, ..Default::default() };
    let set = start(builder_of(cluster.servers()).timeouts(timeouts)).await;
    let conn = set.read().await.unwrap();
    let error = set.close().await.unwrap_err();
    assert!(matches!(error, Error::Close { connections: 1, after } if after == limit), "{error}");
    assert!(value(&conn, "SELECT 1").await.is_err(), "it was closed");
    assert!(matches!(set.read().await, Err(CheckoutError::Closed)));
}

/// Callers in the queue of a pool got the connections that others returned, so a busy set never closed.
#[tokio::test]
async fn close_fails_callers_that_wait_for_a_connection() {
    let cluster = start_cluster(0).await;
    let set = start(builder_of(cluster.servers()).pool(pools_of(1)).application_name("queue")).await;
    let conn = set.read().await.unwrap();
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let set = set.clone();
            tokio::spawn(async move { set.read().await.map(std::mem::forget) })
        })
        .collect();
    tokio::task::yield_now().await;
    let closing = tokio::spawn({
        let set = set.clone();
        async move { set.close().await }
    });
    for waiter in waiting {
        let refused = timeout(Duration::from_secs(4), waiter).await.expect("at once").unwrap();
        assert!(matches!(refused, Err(CheckoutError::Closed)), "{refused:?}");
    }
    drop(conn);
    closing.await.unwrap().expect("everything was returned");
    until("no session is left", async || sessions(cluster.primary(), "queue").await == 0).await.unwrap();
}

#[tokio::test]
async fn all_tasks_and_sessions_end_with_the_last_clone() {
    let cluster = start_cluster(2).await;
    let set = start(builder_of(cluster.servers()).application_name("transient")).await;
    let clone = set.clone();
    drop(set);
    for _ in 0..20 {
        drop(clone.read().await.expect("a clone is the set"));
    }
    let held = clone.write().await.unwrap();
    assert_eq!(in_use(&clone), 1);
    assert!(sessions(cluster.primary(), "transient").await >= 2, "a monitor and a connection");
    drop(clone);
    value(&held, "SELECT 1").await.expect("a connection outlives its set");
    drop(held);
    for server in cluster.servers() {
        until("no session is left", async || sessions(server, "transient").await == 0).await.unwrap();
    }
}
