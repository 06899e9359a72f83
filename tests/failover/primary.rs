//! Incidents of the primary: killed, hung, replaced as planned, and two at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use pointsman::testkit::wait::{until, until_all_serve, until_node, until_topology, until_writable};
use pointsman::topology::{Health, NodeRole};

use crate::fixture::{count_acks, fixture, is_split_brain, promote, until_serving_replica, write_row};
use crate::load::{lost_on, print_report, start_load};
use crate::test_error::TestResult;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary_is_replaced_without_losing_what_the_new_one_has() -> TestResult {
    let (cluster, set) = fixture(2).await?;
    let load = start_load(&set);
    load.done(1200).await;
    let (primary, new_primary) = (cluster.primary(), cluster.replica(0));
    // By default a killed primary may lose its last acknowledged writes. With this setting, every acknowledged write
    // has reached the new primary, and must be there afterwards.
    let first = format!("FIRST 1 (\"{}\")", new_primary.name());
    primary.change_setting("synchronous_standby_names", &first).await?;
    load.done(600).await;

    // Break.
    primary.kill().await?;
    load.done(300).await;
    let promoted = new_primary.promote().await?;
    cluster.replica(1).follow(new_primary).await?;

    load.done(1200).await;
    let report = load.stop().await;
    let first_write = report.first_write_after(promoted).expect("a write after the promotion");
    print_report("the primary is killed, a replica promoted", &report);
    println!("    first write {first_write:?} after the new primary took writes");
    assert_eq!(report.failed_reads().count(), 0, "{report}");
    assert!(report.longest_read_gap() < Duration::from_millis(100), "{report}");
    assert!(first_write < Duration::from_millis(100), "{first_write:?}");
    assert_eq!(
        lost_on(new_primary, &report).await?,
        [0_u64; 0],
        "what was acknowledged had reached the new primary"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_that_resumes_takes_no_write() -> TestResult {
    let (cluster, set) = fixture(2).await?;
    let (old, new_primary) = (cluster.primary(), cluster.replica(0));
    // A session that was open before anything happened, in the middle of a transaction.
    let mut open = set.write().await?;
    diesel_async::SimpleAsyncConnection::batch_execute(&mut *open, "BEGIN; INSERT INTO acks VALUES (-1)")
        .await?;
    let load = start_load(&set);
    load.done(600).await;

    // Break.
    old.pause().await?;
    let promoted = promote(&set, new_primary).await?;
    let seen = promoted.elapsed();

    // Restore.
    old.resume().await?;
    until_node(&set, old.name(), "is fenced", |node| {
        node.role == NodeRole::StalePrimary && !node.serves_reads
    })
    .await?;
    let commit = diesel_async::SimpleAsyncConnection::batch_execute(&mut *open, "COMMIT").await;

    assert!(commit.is_err(), "the open session was closed");
    load.done(900).await;
    let report = load.stop().await;
    let first_write = report.first_write_after(promoted);
    print_report("the primary hangs, a replica is promoted, the old one wakes up", &report);
    println!("    seen {seen:?}, first write {first_write:?} after the new primary took writes");
    assert_eq!(report.failed_reads().count(), 0, "{report}");
    assert_eq!(count_acks(old, "id = -1").await?, 0);
    let after: Vec<_> =
        report.writes.iter().filter(|write| write.began > promoted).map(|write| write.id).collect();
    let highest = old.query_value("SELECT coalesce(max(id), -1) FROM acks").await?;
    let highest: i64 = highest.parse()?;
    let first_after = after.first().map_or(i64::MAX, |id| i64::try_from(*id).expect("a small number"));
    assert!(highest < first_after, "the old primary took write {highest}, begun after the promotion");
    assert!(first_write.is_some_and(|after| after < Duration::from_millis(1500)), "{first_write:?}");
    Ok(())
}

/// Without reads, no session of a replica reports the promotion. The replicas were probed at their usual pace until the
/// primary's first probe had timed out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_without_an_answer_make_the_set_look_for_a_promotion_before_a_probe_has_failed() -> TestResult
{
    let (cluster, set) = fixture(2).await?;
    let (old, new_primary) = (cluster.primary(), cluster.replica(0));
    let written = Arc::new(AtomicI64::new(0));
    let writers = (0..4).map(|_| {
        let (set, written) = (set.clone(), Arc::clone(&written));
        tokio::spawn(async move {
            loop {
                // A write that was cut off is counted as well, so that its row is not written twice.
                let _ = write_row(&set, written.fetch_add(1, Ordering::Relaxed)).await;
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    until("writes go on", async || written.load(Ordering::Relaxed) > 200).await?;
    let mut changes = set.watch();
    changes.borrow_and_update();
    let probes = || set.health().nodes[1].probes;

    // Break.
    let before = probes();
    old.pause().await?;
    changes
        .wait_for(|topology| topology.node(old.name()).is_some_and(|node| node.health != Health::Up))
        .await?;

    // At the usual pace there are at most three until then.
    let probed = probes() - before;
    assert!(probed >= 5, "{probed} probes of a replica");
    let promoted = promote(&set, new_primary).await?;
    println!("the primary hangs, without reads: {probed} probes, found {:?} after", promoted.elapsed());
    let at = written.load(Ordering::Relaxed);
    until("writes go on", async || written.load(Ordering::Relaxed) > at + 100).await?;
    writers.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_switchover_loses_nothing() -> TestResult {
    let (cluster, set) = fixture(2).await?;
    let load = start_load(&set);
    load.done(900).await;
    let (old, new_primary) = (cluster.primary(), cluster.replica(0));

    // A clean stop waits until the standbys have received everything.
    old.stop().await?;
    let promoted = new_primary.promote().await?;

    // Restore.
    old.rejoin(new_primary).await?;
    cluster.replica(1).follow(new_primary).await?;
    until_serving_replica(&set, old).await?;

    load.done(900).await;
    let report = load.stop().await;
    let first_write = report.first_write_after(promoted).expect("a write after the promotion");
    print_report("a planned switchover", &report);
    println!("    first write {first_write:?} after the new primary took writes");
    assert_eq!(report.failed_reads().count(), 0, "{report}");
    assert_eq!(lost_on(new_primary, &report).await?, [0_u64; 0]);
    assert!(first_write < Duration::from_millis(100), "{first_write:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_primaries_on_one_timeline_get_no_writes_until_one_is_rebuilt() -> TestResult {
    let (cluster, set) = fixture(2).await?;
    let load = start_load(&set);
    load.done(600).await;
    let (one, other) = (cluster.replica(0), cluster.replica(1));

    // Break.
    cluster.primary().kill().await?;
    let (first, second) = tokio::join!(one.promote(), other.promote());
    first.and(second)?;
    until_topology(&set, "both conflict", |topology| {
        [one, other]
            .iter()
            .all(|s| topology.node(s.name()).is_some_and(|node| node.role == NodeRole::Conflicting))
    })
    .await?;

    let error = set.write().await.expect_err("writes are refused");
    assert!(is_split_brain(&error), "{error}");
    assert!(error.to_string().contains(one.name()) && error.to_string().contains(other.name()), "{error}");
    load.done(600).await;

    // The two have different histories by one name, so there is nothing to rewind to.
    other.rebuild(one).await?;
    until_writable(&set).await?;
    write_row(&set, -1).await?;

    assert_eq!(count_acks(one, "id = -1").await?, 1);
    let report = load.stop().await;
    print_report("both replicas are promoted", &report);
    assert_eq!(report.failed_reads().count(), 0, "{report}");

    // Restore.
    cluster.primary().rejoin(one).await?;
    until_all_serve(&set).await?;
    Ok(())
}
