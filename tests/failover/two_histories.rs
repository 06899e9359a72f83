//! Incidents of a COMMIT without an answer, after which several histories have the same timeline.

use pointsman::testkit::Server;
use pointsman::topology::NodeRole;
use pointsman::{CommitOutcome, Error, ReplicaSet};

use crate::load::{until, until_writable};
use crate::resolve::{
    give_id_again, has_row, hold, hold_when_written, insert, promoted, scene, until_value, until_waiting,
};

async fn until_role(set: &ReplicaSet, server: &Server, role: NodeRole) {
    let name = server.name().to_owned();
    until(set, "it stands so", |topology| topology.node(&name).is_some_and(|node| node.role == role)).await;
}

/// Two standbys that had received the same WAL were both promoted, so to one timeline, from one position. Recoveries
/// and in-doubt transactions carried no node, so the two histories counted as one. The second primary's report about
/// the first one's transaction was believed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_one_primary_is_not_settled_by_another_one_of_the_same_timeline() {
    let (cluster, set) = scene(2).await;
    let (old, first, second) = (cluster.primary(), cluster.replica(0), cluster.replica(1));
    // A clean stop leaves both standbys with all of it.
    old.stop().await.expect("stopped");
    let end = old_end(first).await;
    until_value(second, "SELECT pg_last_wal_replay_lsn()", &end).await;
    promoted(&set, first).await;
    let lock = hold(first).await;
    let in_doubt = insert(&set);
    until_waiting(first, "advisory").await;
    first.kill().await.expect("killed");
    drop(lock);
    let in_doubt = in_doubt.await.expect("no panic");
    until_role(&set, first, NodeRole::Unknown).await;
    second.promote().await.expect("promoted");
    give_id_again(second, &in_doubt).await;

    // Two histories by one name: writes are refused until one is gone for good.
    let outcome = set.resolve(&in_doubt).await;
    assert!(matches!(outcome, Err(Error::Checkout(_))), "there is no primary to ask: {outcome:?}");
    first.rebuild(second).await.expect("rebuilt");
    until_writable(&set).await;
    let settled = set.resolve(&in_doubt).await.expect("an answer");
    println!("settled by another history of the same timeline: {settled:?}");
    assert!(!has_row(second).await);
    assert_ne!(settled, CommitOutcome::Committed, "it never was");
}

async fn old_end(server: &Server) -> String {
    server.query_value("SELECT pg_last_wal_replay_lsn()").await.expect("an answer")
}

/// The recovery of a primary that is gone, which had not received the transaction, counted for the present one, which
/// had. The result was "safe to run again".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_transaction_is_not_lost_for_what_another_promotion_had_not_received() {
    let (cluster, set) = scene(2).await;
    let (old, without, with) = (cluster.primary(), cluster.replica(0), cluster.replica(1));
    hold_when_written(old).await;
    cluster.wait_caught_up().await.expect("they have followed");
    without.disconnect_from_primary().await.expect("disconnected");
    let in_doubt = insert(&set);
    until_waiting(old, "SyncRep").await;
    until_value(with, "SELECT count(*) FROM acks", "1").await;
    old.kill().await.expect("killed");
    let in_doubt = in_doubt.await.expect("no panic");
    until_role(&set, old, NodeRole::Unknown).await;
    promoted(&set, without).await;
    assert_eq!(set.resolve(&in_doubt).await.expect("an answer"), CommitOutcome::RolledBack, "not received");
    without.kill().await.expect("killed");
    until_role(&set, without, NodeRole::Unknown).await;
    with.promote().await.expect("promoted");
    without.rebuild(with).await.expect("rebuilt");
    until_writable(&set).await;
    assert!(has_row(with).await);
    assert_eq!(set.resolve(&in_doubt).await.expect("an answer"), CommitOutcome::Committed);
}
