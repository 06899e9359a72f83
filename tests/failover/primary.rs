//! Incidents of the primary: killed, hung, replaced as planned, and two at once.

use std::time::Duration;

use pointsman::testkit::Server;
use pointsman::topology::NodeRole;
use tokio::time::{Instant, sleep};

use crate::load::{is_split_brain, lost_on, report, scene, start, until, until_writable, write_row};

/// Polls a standby on a separate connection; returns the instant at which it took writes.
async fn takes_writes(server: &Server) -> tokio::task::JoinHandle<Instant> {
    let (client, connection) =
        tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.expect("a session");
    tokio::spawn(connection);
    tokio::spawn(async move {
        loop {
            let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await.expect("an answer");
            if !row.get::<_, bool>(0) {
                return Instant::now();
            }
            sleep(Duration::from_millis(1)).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary_is_replaced_without_losing_what_the_new_one_has() {
    let (cluster, set) = scene(2).await;
    let load = start(&set);
    load.done(1200).await;
    let (primary, heir) = (cluster.primary(), cluster.replica(0));
    // By default a killed primary may lose its last acknowledged writes. With this setting, every acknowledged write
    // has reached the new primary, and must be there afterwards.
    primary
        .execute(&format!("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (\"{}\")'", heir.name()))
        .await
        .expect("set");
    primary.execute("SELECT pg_reload_conf()").await.expect("reloaded");
    load.done(600).await;
    let takes_writes = takes_writes(heir).await;
    primary.kill().await.expect("killed");
    load.done(300).await;
    heir.promote().await.expect("promoted");
    let promoted = takes_writes.await.expect("it took writes");
    cluster.replica(1).follow(heir).await.expect("the other one follows");
    load.done(1200).await;
    let record = load.stop().await;
    let first_write = record.first_write_after(promoted).expect("a write after the promotion");
    report("the primary is killed, a replica promoted", &record);
    println!("    first write {first_write:?} after the new primary took writes");
    assert_eq!(record.failed_reads().count(), 0, "{record}");
    assert!(record.longest_read_gap() < Duration::from_millis(100), "{record}");
    assert!(first_write < Duration::from_millis(100), "{first_write:?}");
    assert_eq!(lost_on(heir, &record).await, [0_u64; 0], "what was acknowledged had reached the new primary");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_that_wakes_up_takes_no_write() {
    let (cluster, set) = scene(2).await;
    let (old, heir) = (cluster.primary(), cluster.replica(0));
    // A session that was open before anything happened, in the middle of a transaction.
    let mut open = set.write().await.expect("a primary");
    diesel_async::SimpleAsyncConnection::batch_execute(&mut *open, "BEGIN; INSERT INTO acks VALUES (-1)")
        .await
        .expect("an open transaction");
    let load = start(&set);
    load.done(600).await;
    old.pause().await.expect("paused");
    let watcher = takes_writes(heir).await;
    heir.promote().await.expect("promoted");
    let promoted = watcher.await.expect("it took writes");
    until(&set, "the new primary is seen", |topology| {
        topology.node(heir.name()).is_some_and(|node| node.serves_writes)
    })
    .await;
    old.resume().await.expect("resumed");
    until(&set, "the old primary is fenced", |topology| {
        topology
            .node(old.name())
            .is_some_and(|node| node.role == NodeRole::StalePrimary && !node.serves_reads)
    })
    .await;
    let commit = diesel_async::SimpleAsyncConnection::batch_execute(&mut *open, "COMMIT").await;
    assert!(commit.is_err(), "the open session was severed");
    load.done(900).await;
    let record = load.stop().await;
    let first_write = record.first_write_after(promoted);
    report("the primary hangs, a replica is promoted, the old one wakes up", &record);
    println!("    first write {first_write:?} after the new primary took writes");
    assert_eq!(record.failed_reads().count(), 0, "{record}");
    assert_eq!(old.query_value("SELECT count(*) FROM acks WHERE id = -1").await.expect("an answer"), "0");
    let after: Vec<_> =
        record.writes.iter().filter(|write| write.began > promoted).map(|write| write.id).collect();
    let highest = old.query_value("SELECT coalesce(max(id), -1) FROM acks").await.expect("an answer");
    let highest: i64 = highest.parse().expect("a number");
    let first_after = after.first().map_or(i64::MAX, |id| i64::try_from(*id).expect("a small number"));
    assert!(highest < first_after, "the old primary took write {highest}, begun after the promotion");
    assert!(first_write.is_some_and(|after| after < Duration::from_millis(1500)), "{first_write:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_switchover_loses_nothing() {
    let (cluster, set) = scene(2).await;
    let load = start(&set);
    load.done(900).await;
    let (old, heir) = (cluster.primary(), cluster.replica(0));
    let watcher = takes_writes(heir).await;
    // A clean stop waits until the standbys have received everything.
    old.stop().await.expect("stopped");
    heir.promote().await.expect("promoted");
    let promoted = watcher.await.expect("it took writes");
    old.rejoin(heir).await.expect("rejoined as a standby");
    cluster.replica(1).follow(heir).await.expect("the other one follows");
    until(&set, "the old primary serves reads", |topology| {
        topology.node(old.name()).is_some_and(|node| node.role == NodeRole::Replica && node.serves_reads)
    })
    .await;
    load.done(900).await;
    let record = load.stop().await;
    let first_write = record.first_write_after(promoted).expect("a write after the promotion");
    report("a planned switchover", &record);
    println!("    first write {first_write:?} after the new primary took writes");
    assert_eq!(record.failed_reads().count(), 0, "{record}");
    assert_eq!(lost_on(heir, &record).await, [0_u64; 0]);
    assert!(first_write < Duration::from_millis(100), "{first_write:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_primaries_on_one_timeline_get_no_writes_until_one_is_rebuilt() {
    let (cluster, set) = scene(2).await;
    let load = start(&set);
    load.done(600).await;
    let (one, other) = (cluster.replica(0), cluster.replica(1));
    cluster.primary().kill().await.expect("killed");
    let (first, second) = tokio::join!(one.promote(), other.promote());
    first.and(second).expect("both promoted");
    until(&set, "both contend", |topology| {
        [one, other]
            .iter()
            .all(|s| topology.node(s.name()).is_some_and(|node| node.role == NodeRole::Conflicting))
    })
    .await;
    let error = set.write().await.expect_err("writes are refused");
    assert!(is_split_brain(&error), "{error}");
    assert!(error.to_string().contains(one.name()) && error.to_string().contains(other.name()), "{error}");
    load.done(600).await;
    // The two have different histories by one name, so there is nothing to rewind to.
    other.rebuild(one).await.expect("rebuilt");
    until_writable(&set).await;
    write_row(&set, -1).await.expect("a write on the one that is left");
    assert_eq!(one.query_value("SELECT count(*) FROM acks WHERE id = -1").await.expect("an answer"), "1");
    let record = load.stop().await;
    report("both replicas are promoted", &record);
    assert_eq!(record.failed_reads().count(), 0, "{record}");

    cluster.primary().rejoin(one).await.expect("rejoined");
    until(&set, "all are well again", |topology| topology.nodes.iter().all(|node| node.serves_reads)).await;
}
