//! Incidents of a COMMIT without an answer, and the resolution of its outcome afterwards.
//!
//! A COMMIT is held at one of two places. A deferred trigger that waits for a lock holds it before its record is
//! written. A synchronous standby that does not exist holds it when the record is on the primary's disk.

use pointsman::config::{ConfigBuilder, NodeConfig};
use pointsman::testkit::wait::{until, until_no_primary, until_writable};
use pointsman::testkit::{Cluster, Server};
use pointsman::{CommitOutcome, Config, Error, InDoubt, ReplicaSet, WriteOptions};
use tokio::task::JoinHandle;

use crate::fixture::{count_acks, promote, replica};
use crate::test_error::TestResult;
use crate::writes::sql;

const HELD: &str = "\
    CREATE TABLE acks (id bigint PRIMARY KEY); \
    CREATE FUNCTION wait_for_leave() RETURNS trigger LANGUAGE plpgsql AS \
        $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END $$; \
    CREATE CONSTRAINT TRIGGER held AFTER INSERT ON acks DEFERRABLE INITIALLY DEFERRED \
        FOR EACH ROW EXECUTE FUNCTION wait_for_leave();";

/// A cluster whose primary is behind a proxy, with a table whose inserts wait in tnew_primary COMMIT for a lock.
pub(crate) async fn fixture(replicas: usize) -> TestResult<(Cluster, ReplicaSet)> {
    let builder = Cluster::builder().replicas(replicas);
    // Nothing reaches the disk before a session waits for it.
    let cluster = builder.setting("wal_writer_delay", "10s").start().await?;
    let primary = NodeConfig::primary(cluster.primary().proxied_url().await?)?.with_name("primary");
    let add = |config: ConfigBuilder, server: &Server| config.node(replica(server.url(), server.name()));
    let config = cluster.replicas().iter().fold(Config::builder().node(primary), add);
    cluster.primary().execute(HELD).await?;
    cluster.wait_caught_up().await?;
    let set = ReplicaSet::connect(config.build()?).await?;
    until_writable(&set).await?;
    Ok((cluster, set))
}

/// A session that holds the lock or standby that a COMMIT waits for, as long as it lives.
pub(crate) async fn hold(server: &Server) -> TestResult<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(&server.admin_url(), tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute("SELECT pg_advisory_lock(7)").await?;
    Ok(client)
}

/// Waits until a session of the program waits for this kind of event.
pub(crate) async fn until_waiting(server: &Server, event: &str) -> TestResult {
    let sql =
        format!("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event = '{event}'");
    until_value(server, &sql, "1").await
}

pub(crate) async fn until_value(server: &Server, sql: &str, wanted: &str) -> TestResult {
    let condition = format!("{} answers {wanted} to {sql}", server.name());
    let answers = async || server.query_value(sql).await.is_ok_and(|value| value == wanted);
    Ok(until(&condition, answers).await?)
}

/// Lets commits reach the primary's disk and go no further.
pub(crate) async fn hold_when_written(server: &Server) -> TestResult {
    server.execute("ALTER TABLE acks DISABLE TRIGGER held").await?;
    server.change_setting("synchronous_standby_names", "missing").await?;
    Ok(())
}

/// Inserts a row in a separate task, and returns the in-doubt transaction.
pub(crate) fn insert(set: &ReplicaSet) -> JoinHandle<InDoubt> {
    let set = set.clone();
    tokio::spawn(async move {
        let options = WriteOptions::new().resolvable();
        let outcome: Result<(), Error> =
            set.run_write_with(&options, async |tx| sql(tx, "INSERT INTO acks VALUES (1)").await).await;
        match outcome {
            Err(Error::OutcomeUnknown(unknown)) => unknown.in_doubt.expect("it was noted"),
            other => panic!("the answer was lost: {other:?}"),
        }
    })
}

pub(crate) async fn has_row(server: &Server) -> TestResult<bool> {
    Ok(count_acks(server, "id = 1").await? == 1)
}

/// Commits transactions until one of them has the id that a lost one had.
pub(crate) async fn give_id_again(server: &Server, in_doubt: &InDoubt) -> TestResult {
    server.execute("CREATE TABLE others (id xid8)").await?;
    loop {
        server.execute("INSERT INTO others VALUES (pg_current_xact_id())").await?;
        let last = server.query_value("SELECT max(id::text::bigint) FROM others").await?;
        let last: u64 = last.parse()?;
        if last >= in_doubt.transaction_id {
            break;
        }
    }
    let sql = format!("SELECT pg_xact_status('{}')", in_doubt.transaction_id);
    assert_eq!(server.query_value(&sql).await?, "committed", "the id belongs to another transaction");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_resolved_on_the_same_primary() -> TestResult {
    let (cluster, set) = fixture(0).await?;
    let primary = cluster.primary();
    let proxy = primary.proxy().await?;

    // It is still running when its outcome is asked for.
    let lock = hold(primary).await?;
    let in_doubt = insert(&set);
    until_waiting(primary, "advisory").await?;

    // Break.
    proxy.reset().await?;
    let in_doubt = in_doubt.await?;
    let resolved = tokio::spawn({
        let (set, in_doubt) = (set.clone(), in_doubt.clone());
        async move { set.resolve(&in_doubt).await }
    });
    until_value(
        primary,
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND query LIKE '%pg_xact_status%'",
        "1",
    )
    .await?;

    assert!(!resolved.is_finished(), "it waits for a transaction that goes on");
    drop(lock);
    assert_eq!(resolved.await??, CommitOutcome::Committed);
    assert!(has_row(primary).await?);

    // The session ends before the commit.
    primary.execute("TRUNCATE acks").await?;
    let lock = hold(primary).await?;
    let in_doubt = insert(&set);
    until_waiting(primary, "advisory").await?;
    primary
        .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND wait_event = 'advisory'")
        .await?;
    let in_doubt = in_doubt.await?;
    drop(lock);
    assert_eq!(set.resolve(&in_doubt).await?, CommitOutcome::RolledBack);
    assert!(!has_row(primary).await?);

    // The network stalls; the COMMIT has arrived, and its answer has not.
    let lock = hold(primary).await?;
    let in_doubt = insert(&set);
    until_waiting(primary, "advisory").await?;

    // Break.
    proxy.stall().await?;
    drop(lock);
    let in_doubt = in_doubt.await?;
    proxy.reset().await?;

    // Restore.
    proxy.pass().await?;

    assert_eq!(set.resolve(&in_doubt).await?, CommitOutcome::Committed);
    assert!(has_row(primary).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_knows_the_commit_that_it_had_received() -> TestResult {
    let (cluster, set) = fixture(2).await?;
    let (primary, new_primary) = (cluster.primary(), cluster.replica(0));
    hold_when_written(primary).await?;
    let in_doubt = insert(&set);
    until_waiting(primary, "SyncRep").await?;
    until_value(new_primary, "SELECT count(*) FROM acks", "1").await?;

    // Break.
    primary.kill().await?;
    let in_doubt = in_doubt.await?;
    until_no_primary(&set).await?;
    promote(&set, new_primary).await?;

    assert_eq!(set.resolve(&in_doubt).await?, CommitOutcome::Committed);

    // After a second promotion, another primary reports about its predecessor's predecessor.
    cluster.replica(1).follow(new_primary).await?;
    cluster.wait_caught_up().await?;

    // Break.
    new_primary.kill().await?;
    until_no_primary(&set).await?;
    promote(&set, cluster.replica(1)).await?;

    assert_eq!(set.resolve(&in_doubt).await?, CommitOutcome::Unknown);
    Ok(())
}

/// After a crash of the new primary, its report had only that recovery, which went beyond the position of the in-doubt
/// transaction. The transaction that had got the id meanwhile was taken for the lost one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_does_not_take_another_transaction_for_the_one_it_never_received() -> TestResult {
    let (cluster, set) = fixture(1).await?;
    let (primary, new_primary) = (cluster.primary(), cluster.replica(0));
    hold_when_written(primary).await?;
    cluster.wait_caught_up().await?;

    // Break.
    new_primary.disconnect_from_primary().await?;
    let in_doubt = insert(&set);
    until_waiting(primary, "SyncRep").await?;
    primary.kill().await?;
    let in_doubt = in_doubt.await?;
    until_no_primary(&set).await?;
    promote(&set, new_primary).await?;

    assert_eq!(set.resolve(&in_doubt).await?, CommitOutcome::RolledBack, "not received");
    give_id_again(new_primary, &in_doubt).await?;
    assert_eq!(set.resolve(&in_doubt).await?, CommitOutcome::RolledBack, "another's id");

    // Break.
    new_primary.kill().await?;
    until_no_primary(&set).await?;

    // Restore.
    new_primary.start().await?;
    until_writable(&set).await?;

    assert_eq!(set.resolve(&in_doubt).await?, CommitOutcome::RolledBack, "after a crash");
    assert!(!has_row(new_primary).await?);
    Ok(())
}

/// A clean restart after the crash, or a second crash, hid the first one, which had lost the transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_crashed_does_not_take_another_transaction_for_the_one_it_lost() -> TestResult {
    let (cluster, set) = fixture(0).await?;
    let primary = cluster.primary();
    let lock = hold(primary).await?;
    let in_doubt = insert(&set);
    until_waiting(primary, "advisory").await?;

    // Break.
    primary.kill().await?;
    drop(lock);
    let in_doubt = in_doubt.await?;
    until_no_primary(&set).await?;

    // Restore.
    primary.start().await?;
    until_writable(&set).await?;

    assert_eq!(set.resolve(&in_doubt).await?, CommitOutcome::RolledBack, "after the crash");
    give_id_again(primary, &in_doubt).await?;
    assert_eq!(set.resolve(&in_doubt).await?, CommitOutcome::RolledBack, "another's id");
    primary.restart().await?;
    until_writable(&set).await?;
    assert_eq!(set.resolve(&in_doubt).await?, CommitOutcome::RolledBack, "a clean restart");

    // Break.
    primary.kill().await?;
    until_no_primary(&set).await?;

    // Restore.
    primary.start().await?;
    until_writable(&set).await?;

    assert_eq!(set.resolve(&in_doubt).await?, CommitOutcome::RolledBack, "a second crash");

    // Writes from before a crash are known after it.
    hold_when_written(primary).await?;
    let in_doubt = insert(&set);
    until_waiting(primary, "SyncRep").await?;

    // Break.
    primary.kill().await?;
    let in_doubt = in_doubt.await?;

    // Restore.
    primary.start().await?;

    assert_eq!(set.resolve(&in_doubt).await?, CommitOutcome::Committed);
    assert!(has_row(primary).await?);
    Ok(())
}
