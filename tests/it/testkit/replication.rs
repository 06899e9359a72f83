//! Roles change, and replicas lag.

use super::connect;
use crate::support::start_cluster;
use pointsman::testkit::wait::until;
use pointsman::testkit::{Cluster, TestkitError};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const SUM: &str = "SELECT coalesce(sum(number), 0) FROM train";

async fn with_a_table(replicas: usize) -> Cluster {
    let cluster = start_cluster(replicas).await;
    cluster.primary().execute("CREATE TABLE train (number int)").await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    cluster
}

#[tokio::test]
async fn a_replica_takes_over_and_the_old_primary_comes_back_as_its_standby() {
    let cluster = with_a_table(2).await;
    let (old, new) = (cluster.primary(), cluster.replica(0));
    old.execute("INSERT INTO train VALUES (1)").await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    // The primary has data that no replica gets.
    cluster.replica(0).disconnect_from_primary().await.unwrap();
    cluster.replica(1).disconnect_from_primary().await.unwrap();
    old.execute("INSERT INTO train VALUES (100)").await.unwrap();

    old.kill().await.unwrap();
    new.promote().await.unwrap();
    new.execute("INSERT INTO train VALUES (2)").await.unwrap();
    cluster.replica(1).follow(new).await.unwrap();
    old.rejoin(new).await.unwrap();
    cluster.wait_caught_up().await.unwrap();

    assert_eq!(cluster.current_primary().await.unwrap().name(), "replica-1");
    for server in cluster.servers() {
        assert_eq!(server.query_value(SUM).await.unwrap(), "3", "{server:?}");
    }
}

#[tokio::test]
async fn a_planned_switchover_and_back_loses_nothing() {
    let cluster = with_a_table(1).await;
    let (first, second) = (cluster.primary(), cluster.replica(0));
    for (round, (old, new)) in [(first, second), (second, first)].into_iter().enumerate() {
        old.execute("INSERT INTO train VALUES (1)").await.unwrap();
        old.stop().await.unwrap();
        new.promote().await.unwrap();
        new.execute("INSERT INTO train VALUES (10)").await.unwrap();
        old.rejoin(new).await.unwrap();
        assert!(old.is_in_recovery().await.unwrap());
        cluster.wait_caught_up().await.unwrap();
        assert_eq!(old.query_value(SUM).await.unwrap(), (11 * (round + 1)).to_string());
    }
}

#[tokio::test]
async fn an_old_primary_that_resumes_is_still_a_primary() {
    let cluster = with_a_table(1).await;
    let (old, new) = (cluster.primary(), cluster.replica(0));
    old.pause().await.unwrap();
    new.promote().await.unwrap();
    old.resume().await.unwrap();
    assert!(!old.is_in_recovery().await.unwrap());
    assert!(!new.is_in_recovery().await.unwrap());
    assert_eq!(cluster.current_primary().await.unwrap().name(), "replica-1");
}

#[tokio::test]
async fn an_open_session_on_a_standby_becomes_writable_by_its_promotion() {
    let cluster = with_a_table(1).await;
    let client = connect(&cluster.replica(0).url()).await.unwrap();
    client.batch_execute("INSERT INTO train VALUES (1)").await.unwrap_err();
    cluster.primary().kill().await.unwrap();
    cluster.replica(0).promote().await.unwrap();
    client.batch_execute("INSERT INTO train VALUES (1)").await.unwrap();
}

#[tokio::test]
async fn a_replica_whose_replay_is_paused_receives_and_does_not_show() {
    let cluster = with_a_table(1).await;
    let replica = cluster.replica(0);
    replica.pause_replay().await.unwrap();
    cluster.primary().execute("INSERT INTO train VALUES (7)").await.unwrap();
    let received = "SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()";
    until("it has received", async || replica.query_value(received).await.unwrap() == "t").await.unwrap();
    assert_eq!(replica.query_value(SUM).await.unwrap(), "0");
    replica.resume_replay().await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    assert_eq!(replica.query_value(SUM).await.unwrap(), "7");
}

#[tokio::test]
async fn a_replay_delay_holds_commits_back() {
    let cluster = with_a_table(1).await;
    let replica = cluster.replica(0);
    let delay = Duration::from_millis(1500);
    replica.set_replay_delay(delay).await.unwrap();
    let begin = Instant::now();
    cluster.primary().execute("INSERT INTO train VALUES (7)").await.unwrap();
    assert_eq!(replica.query_value(SUM).await.unwrap(), "0");
    cluster.wait_caught_up().await.unwrap();
    assert!(begin.elapsed() >= delay, "{:?}", begin.elapsed());

    // A delay that ends releases the WAL that it holds.
    replica.set_replay_delay(Duration::from_secs(3600)).await.unwrap();
    cluster.primary().execute("INSERT INTO train VALUES (1)").await.unwrap();
    replica.set_replay_delay(Duration::ZERO).await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    assert_eq!(replica.query_value(SUM).await.unwrap(), "8");
}

#[tokio::test]
async fn a_replica_without_its_primary_learns_nothing_until_it_is_back() {
    let cluster = with_a_table(1).await;
    let replica = cluster.replica(0);
    replica.disconnect_from_primary().await.unwrap();
    assert_eq!(replica.query_value("SELECT count(*) FROM pg_stat_wal_receiver").await.unwrap(), "0");
    cluster.primary().execute("INSERT INTO train VALUES (7)").await.unwrap();
    assert_eq!(replica.query_value(SUM).await.unwrap(), "0");

    // It stays cut off over a restart.
    replica.restart().await.unwrap();
    assert_eq!(replica.query_value("SELECT count(*) FROM pg_stat_wal_receiver").await.unwrap(), "0");
    replica.reconnect_to_primary().await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    assert_eq!(replica.query_value(SUM).await.unwrap(), "7");

    let refused = cluster.primary().reconnect_to_primary().await.unwrap_err();
    assert!(matches!(refused, TestkitError::State { .. }), "{refused}");
}

#[tokio::test]
async fn a_standby_can_follow_a_standby() {
    let cluster = with_a_table(2).await;
    cluster.replica(1).follow(cluster.replica(0)).await.unwrap();
    let standbys = "SELECT string_agg(application_name, ' ') FROM pg_stat_replication";
    assert_eq!(cluster.replica(0).query_value(standbys).await.unwrap(), "replica-2");
    cluster.primary().execute("INSERT INTO train VALUES (7)").await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    assert_eq!(cluster.replica(1).query_value(SUM).await.unwrap(), "7");
}

#[tokio::test]
async fn two_promoted_replicas_share_a_timeline() {
    let cluster = with_a_table(2).await;
    cluster.primary().kill().await.unwrap();
    let mut timelines = Vec::new();
    for replica in cluster.replicas() {
        replica.promote().await.unwrap();
        let file = replica.query_value("SELECT pg_walfile_name(pg_current_wal_insert_lsn())").await.unwrap();
        timelines.push(file[..8].to_owned());
    }
    assert_eq!(timelines, ["00000002", "00000002"]);
}

#[tokio::test]
async fn the_file_that_promotes_a_server_belongs_to_it_from_the_first_moment() {
    // The server removes the file as soon as it sees it, so a file that got its owner later was sometimes gone before.
    let cluster = with_a_table(1).await;
    let replica = cluster.replica(0);
    let owner = std::fs::metadata(replica.data_dir()).unwrap().uid();
    let promoted = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let (file, promoted) = (replica.data_dir().join("promote"), Arc::clone(&promoted));
        move || {
            let mut owners = BTreeSet::new();
            while !promoted.load(Ordering::Relaxed) {
                owners.extend(std::fs::metadata(&file).map(|found| found.uid()));
            }
            owners
        }
    });
    let outcome = replica.promote().await;
    promoted.store(true, Ordering::Relaxed);
    outcome.unwrap();
    // The file lives for microseconds, so a busy machine may miss it.
    let owners = watcher.join().unwrap();
    assert!(owners.iter().all(|seen| *seen == owner), "{owners:?}");
}
