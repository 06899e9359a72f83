//! Incidents of a COMMIT without an answer, after which several histories have the same timeline.

use pointsman::testkit::wait::until_writable;
use pointsman::{CommitOutcome, Error};

use crate::fixture::{promote, until_role_unknown};
use crate::resolve::{
    fixture, give_id_again, has_row, hold, hold_when_written, insert, until_value, until_waiting,
};
use crate::test_error::TestResult;

/// Two standbys that had received the same WAL were both promoted, so to one timeline, from one position. Recoveries
/// and in-doubt transactions carried no node, so the two histories counted as one. The second primary's report about
/// the first one's transaction was believed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_one_primary_is_not_resolved_by_another_one_of_the_same_timeline() -> TestResult {
    let (cluster, set) = fixture(2).await?;
    let (old, first, second) = (cluster.primary(), cluster.replica(0), cluster.replica(1));

    // A clean stop leaves both standbys with all of it.
    old.stop().await?;
    let end = first.query_value("SELECT pg_last_wal_replay_lsn()").await?;
    until_value(second, "SELECT pg_last_wal_replay_lsn()", &end).await?;
    promote(&set, first).await?;
    let lock = hold(first).await?;
    let in_doubt = insert(&set);
    until_waiting(first, "advisory").await?;
    first.kill().await?;
    drop(lock);
    let in_doubt = in_doubt.await?;
    until_role_unknown(&set, first).await?;
    second.promote().await?;
    give_id_again(second, &in_doubt).await?;

    // Two histories by one name: writes are refused until one is gone for good.
    let outcome = set.resolve(&in_doubt).await;

    assert!(matches!(outcome, Err(Error::Checkout(_))), "there is no primary to ask: {outcome:?}");

    // Restore.
    first.rebuild(second).await?;
    until_writable(&set).await?;

    let outcome = set.resolve(&in_doubt).await?;
    println!("resolved by another history of the same timeline: {outcome:?}");
    assert!(!has_row(second).await?);
    assert_ne!(outcome, CommitOutcome::Committed, "it never was");
    Ok(())
}

/// The recovery of a primary that is gone, which had not received the transaction, counted for the present one, which
/// had. The result was "safe to run again".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_transaction_is_resolved_by_the_primary_that_had_received_it() -> TestResult {
    let (cluster, set) = fixture(2).await?;
    let (old, without, with) = (cluster.primary(), cluster.replica(0), cluster.replica(1));
    hold_when_written(old).await?;
    cluster.wait_caught_up().await?;

    // Break.
    without.disconnect_from_primary().await?;
    let in_doubt = insert(&set);
    until_waiting(old, "SyncRep").await?;
    until_value(with, "SELECT count(*) FROM acks", "1").await?;
    old.kill().await?;
    let in_doubt = in_doubt.await?;
    until_role_unknown(&set, old).await?;
    promote(&set, without).await?;

    assert_eq!(set.resolve(&in_doubt).await?, CommitOutcome::RolledBack, "not received");

    // Break.
    without.kill().await?;
    until_role_unknown(&set, without).await?;
    with.promote().await?;

    // Restore.
    without.rebuild(with).await?;
    until_writable(&set).await?;

    assert!(has_row(with).await?);
    assert_eq!(set.resolve(&in_doubt).await?, CommitOutcome::Committed);
    Ok(())
}
