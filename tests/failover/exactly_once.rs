//! Incidents of the primary under steady writes with `exactly_once`, whose users notice nothing but a delay.

use std::time::Duration;

use pointsman::testkit::wait::until_node;
use pointsman::testkit::{Cluster, Load, Server};
use pointsman::topology::NodeRole;
use pointsman::{CommitOutcome, Error, ReplicaSet, WriteOptions};
use tokio::time::Instant;

use crate::fixture::{fixture, promote, until_role_unknown, until_serving_replica};
use crate::load::{effects_on, print_report, start_load_once};
use crate::resolve::{fixture as held_fixture, has_row, hold, hold_when_written, until_value, until_waiting};
use crate::test_error::TestResult;
use crate::writes::sql;

const ONCE: WriteOptions = WriteOptions::new().exactly_once();

/// A primary that acknowledges what a replica has, and a load of writes that each take effect once.
async fn under_load() -> TestResult<(Cluster, ReplicaSet, Load)> {
    let (cluster, set) = fixture(2).await?;
    // Without a key, so that a second effect is seen.
    cluster.primary().execute("CREATE TABLE effects (id bigint NOT NULL)").await?;
    cluster.primary().change_setting("synchronous_standby_names", "ANY 1 (*)").await?;
    cluster.wait_caught_up().await?;
    let load = start_load_once(&set);
    load.done(1200).await;
    Ok((cluster, set, load))
}

/// Returns the replica that has received more, and the other one.
async fn most_advanced(cluster: &Cluster) -> TestResult<(&Server, &Server)> {
    let (one, other) = (cluster.replica(0), cluster.replica(1));
    let received = "SELECT (pg_last_wal_receive_lsn() - '0/0')::bigint";
    let [first, second] = [one.query_value(received).await?, other.query_value(received).await?];
    Ok(if first.parse::<i64>()? >= second.parse()? { (one, other) } else { (other, one) })
}

/// Ends the load, and compares what its users saw with what the new primary has.
async fn assert_exact(load: Load, new_primary: &Server, promoted: Instant, incident: &str) -> TestResult {
    load.done(1200).await;
    let report = load.stop().await;
    let (effects, first) = (effects_on(new_primary, &report).await?, report.first_write_after(promoted));
    print_report(incident, &report);
    println!("    exactly once: {effects}; first write {first:?} after the new primary took writes");
    assert_eq!(report.failed_writes().count(), 0, "{report}");
    assert_eq!(report.failed_reads().count(), 0, "{report}");
    assert!(effects.is_exact(), "{effects}");
    Ok(())
}

/// The one or two writes that were running failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary_fails_no_write() -> TestResult {
    let (cluster, _set, load) = under_load().await?;

    // Break.
    cluster.primary().kill().await?;
    load.done(300).await;
    let (new_primary, follower) = most_advanced(&cluster).await?;
    let promoted = new_primary.promote().await?;
    follower.follow(new_primary).await?;

    assert_exact(load, new_primary, promoted, "the primary is killed").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_primary_fails_no_write() -> TestResult {
    let (cluster, set, load) = under_load().await?;
    let old = cluster.primary();

    // Break.
    old.pause().await?;
    let (new_primary, follower) = most_advanced(&cluster).await?;
    let promoted = promote(&set, new_primary).await?;
    follower.follow(new_primary).await?;

    // Restore.
    old.resume().await?;
    until_node(&set, old.name(), "is fenced", |node| node.role == NodeRole::StalePrimary).await?;

    assert_exact(load, new_primary, promoted, "the primary hangs, and wakes up").await
}

/// A clean stop ends the wait for the standby of each COMMIT, although the standby gets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_switchover_fails_no_write() -> TestResult {
    let (cluster, set, load) = under_load().await?;
    let (old, new_primary) = (cluster.primary(), cluster.replica(0));

    old.stop().await?;
    let promoted = new_primary.promote().await?;

    // Restore.
    old.rejoin(new_primary).await?;
    cluster.replica(1).follow(new_primary).await?;
    until_serving_replica(&set, old).await?;

    assert_exact(load, new_primary, promoted, "a planned switchover").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_restarts_fails_no_write() -> TestResult {
    let (cluster, _set, load) = under_load().await?;
    let primary = cluster.primary();

    // Break.
    primary.kill().await?;

    // Restore.
    primary.start().await?;

    assert_exact(load, primary, Instant::now(), "the primary crashes, and is started again").await
}

/// Runs an insert that takes effect once, in a separate task, and returns how often it ran.
fn insert_once(set: &ReplicaSet, within: Duration) -> tokio::task::JoinHandle<(Result<(), Error>, u32)> {
    let set = set.clone();
    tokio::spawn(async move {
        let runs = std::sync::atomic::AtomicU32::new(0);
        let outcome = set
            .run_write_with(&ONCE.within(within), async |tx| {
                runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                sql(tx, "INSERT INTO acks VALUES (1)").await
            })
            .await;
        (outcome, runs.into_inner())
    })
}

const LONG: Duration = Duration::from_secs(60);

/// The new primary has it, or it runs again there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_in_flight_is_returned_by_the_new_primary_or_runs_again_there() -> TestResult {
    for received in [true, false] {
        let (cluster, set) = held_fixture(1).await?;
        let (old, new_primary) = (cluster.primary(), cluster.replica(0));
        hold_when_written(old).await?;
        cluster.wait_caught_up().await?;
        if !received {
            new_primary.disconnect_from_primary().await?;
        }
        let write = insert_once(&set, LONG);
        until_waiting(old, "SyncRep").await?;
        if received {
            until_value(new_primary, "SELECT count(*) FROM acks", "1").await?;
        }

        // Break.
        old.kill().await?;
        until_role_unknown(&set, old).await?;
        assert!(!write.is_finished(), "it waits for a primary");
        promote(&set, new_primary).await?;

        let (outcome, runs) = write.await?;
        outcome?;
        assert_eq!(runs, if received { 1 } else { 2 });
        assert!(has_row(new_primary).await?);
    }
    Ok(())
}

/// A run that is resolved as committed on a restarted primary was acknowledged although no standby had it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_survived_a_crash_is_acknowledged_once_its_standby_has_it() -> TestResult {
    let (cluster, set) = held_fixture(0).await?;
    let primary = cluster.primary();
    hold_when_written(primary).await?;
    let write = insert_once(&set, LONG);
    until_waiting(primary, "SyncRep").await?;

    // Break.
    primary.kill().await?;
    until_role_unknown(&set, primary).await?;

    // Restore.
    primary.start().await?;

    // Another commit waits for the standby.
    until_waiting(primary, "SyncRep").await?;
    assert!(has_row(primary).await? && !write.is_finished());
    primary.change_setting("synchronous_standby_names", "").await?;
    let (outcome, runs) = write.await?;
    outcome?;
    assert_eq!(runs, 1);
    Ok(())
}

/// The cases in which the outcome cannot be determined: each is an error that keeps the in-doubt transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_left_in_doubt_only_where_nothing_can_resolve_it() -> TestResult {
    let in_doubt = |outcome: Result<(), Error>| match outcome {
        Err(Error::OutcomeUnknown(unknown)) => unknown.in_doubt.expect("it was noted"),
        other => panic!("{other:?}"),
    };

    // The server still runs it at the deadline.
    let (cluster, set) = held_fixture(1).await?;
    let (old, new_primary) = (cluster.primary(), cluster.replica(0));
    let lock = hold(old).await?;
    let write = insert_once(&set, Duration::from_secs(1));
    until_waiting(old, "advisory").await?;
    old.proxy().await?.reset().await?;
    old.proxy().await?.pass().await?;
    let (outcome, runs) = write.await?;
    let running = in_doubt(outcome);
    assert_eq!(runs, 1);
    drop(lock);
    until_value(old, "SELECT count(*) FROM acks", "1").await?;
    assert_eq!(set.resolve(&running).await?, CommitOutcome::Committed, "later");
    old.execute("TRUNCATE acks").await?;

    // There is no primary before the deadline.
    hold_when_written(old).await?;
    let write = insert_once(&set, Duration::from_secs(1));
    until_waiting(old, "SyncRep").await?;
    until_value(new_primary, "SELECT count(*) FROM acks", "1").await?;
    old.kill().await?;
    let (outcome, _) = write.await?;
    let without_primary = in_doubt(outcome);
    promote(&set, new_primary).await?;
    assert_eq!(set.resolve(&without_primary).await?, CommitOutcome::Committed, "later");

    // The history was forgotten in between.
    let (cluster, set) = held_fixture(0).await?;
    let primary = cluster.primary();
    hold_when_written(primary).await?;
    let write = insert_once(&set, LONG);
    until_waiting(primary, "SyncRep").await?;
    primary.kill().await?;
    until_role_unknown(&set, primary).await?;
    set.forget_history().await;
    primary.start().await?;
    let (outcome, runs) = write.await?;
    in_doubt(outcome);
    assert_eq!(runs, 1);
    Ok(())
}
