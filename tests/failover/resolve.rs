//! Incidents of a COMMIT without an answer, and the resolution of its outcome afterwards.
//!
//! A COMMIT is held at one of two places. A deferred trigger that waits for a lock holds it before its record is
//! written. A synchronous standby that does not exist holds it when the record is on the primary's disk.

use pointsman::config::NodeConfig;
use pointsman::testkit::{Cluster, Server};
use pointsman::topology::PrimaryStatus;
use pointsman::{CommitOutcome, Config, Error, InDoubt, ReplicaSet, WriteOptions};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::load::{until, until_writable};
use crate::writes::sql;

const HELD: &str = "\
    CREATE TABLE acks (id bigint PRIMARY KEY); \
    CREATE FUNCTION wait_for_leave() RETURNS trigger LANGUAGE plpgsql AS \
        $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END $$; \
    CREATE CONSTRAINT TRIGGER held AFTER INSERT ON acks DEFERRABLE INITIALLY DEFERRED \
        FOR EACH ROW EXECUTE FUNCTION wait_for_leave();";

/// A cluster whose primary is behind a proxy, with a table whose inserts wait in their COMMIT for a lock.
pub(crate) async fn scene(replicas: usize) -> (Cluster, ReplicaSet) {
    let builder = Cluster::builder().replicas(replicas);
    // Nothing reaches the disk before a session waits for it.
    let cluster = builder.setting("wal_writer_delay", "10s").start().await.expect("a cluster");
    let url = cluster.primary().proxied_url().await.expect("a URL");
    let primary = NodeConfig::primary(url).expect("a URL").with_name("primary");
    let replica = |builder: pointsman::config::ConfigBuilder, server: &Server| {
        builder.node(NodeConfig::replica(server.url()).expect("a URL").with_name(server.name()))
    };
    let config = cluster.replicas().iter().fold(Config::builder().node(primary), replica);
    cluster.primary().execute(HELD).await.expect("a table");
    cluster.wait_caught_up().await.expect("replicas that follow");
    let set = ReplicaSet::connect(config.build().expect("valid")).await.expect("a set");
    until_writable(&set).await;
    (cluster, set)
}

/// A session that holds the lock or standby that a COMMIT waits for, as long as it lives.
pub(crate) async fn hold(server: &Server) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(&server.admin_url(), tokio_postgres::NoTls).await.expect("a session");
    tokio::spawn(connection);
    client.batch_execute("SELECT pg_advisory_lock(7)").await.expect("the lock");
    client
}

/// Waits until a session of the program waits for this kind of event.
pub(crate) async fn until_waiting(server: &Server, event: &str) {
    let sql =
        format!("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event = '{event}'");
    until_value(server, &sql, "1").await;
}

pub(crate) async fn until_value(server: &Server, sql: &str, wanted: &str) {
    let deadline = Instant::now() + std::time::Duration::from_secs(20);
    while server.query_value(sql).await.expect("an answer") != wanted {
        assert!(Instant::now() < deadline, "it never happened: {sql}");
        sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Lets commits reach the primary's disk and go no further.
pub(crate) async fn hold_when_written(server: &Server) {
    server.execute("ALTER TABLE acks DISABLE TRIGGER held").await.expect("disabled");
    server.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await.expect("set");
    server.execute("SELECT pg_reload_conf()").await.expect("reloaded");
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

pub(crate) async fn has_row(server: &Server) -> bool {
    server.query_value("SELECT count(*) FROM acks WHERE id = 1").await.expect("an answer") == "1"
}

/// Commits transactions until one of them has the id that a lost one had.
pub(crate) async fn give_id_again(server: &Server, in_doubt: &InDoubt) {
    server.execute("CREATE TABLE others (id xid8)").await.expect("a table");
    loop {
        server.execute("INSERT INTO others VALUES (pg_current_xact_id())").await.expect("a row");
        let last = server.query_value("SELECT max(id::text::bigint) FROM others").await.expect("an answer");
        let last: u64 = last.parse().expect("a number");
        if last >= in_doubt.transaction_id {
            break;
        }
    }
    let sql = format!("SELECT pg_xact_status('{}')", in_doubt.transaction_id);
    assert_eq!(server.query_value(&sql).await.expect("an answer"), "committed", "the trap is set");
}

pub(crate) async fn promoted(set: &ReplicaSet, server: &Server) {
    server.promote().await.expect("promoted");
    let name = server.name().to_owned();
    until(set, "the new primary is seen", |topology| {
        topology.node(&name).is_some_and(|node| node.serves_writes)
    })
    .await;
}

async fn until_lost(set: &ReplicaSet) {
    until(set, "the primary is lost", |topology| topology.primary == PrimaryStatus::None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_on_the_way_is_settled_on_the_same_primary() {
    let (cluster, set) = scene(0).await;
    let primary = cluster.primary();
    let proxy = primary.proxy().await.expect("a proxy");

    // It is still running when its outcome is asked for.
    let lock = hold(primary).await;
    let in_doubt = insert(&set);
    until_waiting(primary, "advisory").await;
    proxy.reset().await.expect("reset");
    let in_doubt = in_doubt.await.expect("no panic");
    let settled = tokio::spawn({
        let (set, in_doubt) = (set.clone(), in_doubt.clone());
        async move { set.resolve(&in_doubt).await }
    });
    until_value(
        primary,
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND query LIKE '%pg_xact_status%'",
        "1",
    )
    .await;
    assert!(!settled.is_finished(), "it waits for a transaction that goes on");
    drop(lock);
    assert_eq!(settled.await.expect("no panic").expect("an answer"), CommitOutcome::Committed);
    assert!(has_row(primary).await);

    // The session ends before the commit.
    primary.execute("TRUNCATE acks").await.expect("empty");
    let lock = hold(primary).await;
    let in_doubt = insert(&set);
    until_waiting(primary, "advisory").await;
    primary
        .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND wait_event = 'advisory'")
        .await
        .expect("terminated");
    let in_doubt = in_doubt.await.expect("no panic");
    drop(lock);
    assert_eq!(set.resolve(&in_doubt).await.expect("an answer"), CommitOutcome::RolledBack);
    assert!(!has_row(primary).await);

    // The network stalls; the COMMIT has arrived, and its answer has not.
    let lock = hold(primary).await;
    let in_doubt = insert(&set);
    until_waiting(primary, "advisory").await;
    proxy.stall().await.expect("stalled");
    drop(lock);
    let in_doubt = in_doubt.await.expect("no panic");
    proxy.reset().await.expect("reset");
    proxy.pass().await.expect("passing");
    assert_eq!(set.resolve(&in_doubt).await.expect("an answer"), CommitOutcome::Committed);
    assert!(has_row(primary).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_knows_the_commit_that_it_had_received() {
    let (cluster, set) = scene(2).await;
    let (primary, heir) = (cluster.primary(), cluster.replica(0));
    hold_when_written(primary).await;
    let in_doubt = insert(&set);
    until_waiting(primary, "SyncRep").await;
    until_value(heir, "SELECT count(*) FROM acks", "1").await;
    primary.kill().await.expect("killed");
    let in_doubt = in_doubt.await.expect("no panic");
    until_lost(&set).await;
    promoted(&set, heir).await;
    assert_eq!(set.resolve(&in_doubt).await.expect("an answer"), CommitOutcome::Committed);

    // After a second promotion, another primary reports about its predecessor's predecessor.
    cluster.replica(1).follow(heir).await.expect("it follows");
    cluster.wait_caught_up().await.expect("it has followed");
    heir.kill().await.expect("killed");
    until_lost(&set).await;
    promoted(&set, cluster.replica(1)).await;
    assert_eq!(set.resolve(&in_doubt).await.expect("an answer"), CommitOutcome::Unknown);
}

/// After a crash of the new primary, its record had only that recovery, which went beyond the position of the in-doubt
/// transaction. The transaction that had got the id meanwhile was taken for the lost one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_does_not_take_another_transaction_for_the_one_it_never_received() {
    let (cluster, set) = scene(1).await;
    let (primary, heir) = (cluster.primary(), cluster.replica(0));
    hold_when_written(primary).await;
    cluster.wait_caught_up().await.expect("it has followed");
    heir.disconnect_from_primary().await.expect("disconnected");
    let in_doubt = insert(&set);
    until_waiting(primary, "SyncRep").await;
    primary.kill().await.expect("killed");
    let in_doubt = in_doubt.await.expect("no panic");
    until_lost(&set).await;
    promoted(&set, heir).await;
    assert_eq!(set.resolve(&in_doubt).await.expect("an answer"), CommitOutcome::RolledBack, "not received");
    give_id_again(heir, &in_doubt).await;
    assert_eq!(set.resolve(&in_doubt).await.expect("an answer"), CommitOutcome::RolledBack, "another's id");

    heir.kill().await.expect("killed");
    until_lost(&set).await;
    heir.start().await.expect("started");
    until_writable(&set).await;
    assert_eq!(set.resolve(&in_doubt).await.expect("an answer"), CommitOutcome::RolledBack, "after a crash");
    assert!(!has_row(heir).await);
}

/// A clean restart after the crash, or a second crash, hid the first one, which had lost the transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_crashed_does_not_take_another_transaction_for_the_one_it_lost() {
    let (cluster, set) = scene(0).await;
    let primary = cluster.primary();
    let lock = hold(primary).await;
    let in_doubt = insert(&set);
    until_waiting(primary, "advisory").await;
    primary.kill().await.expect("killed");
    drop(lock);
    let in_doubt = in_doubt.await.expect("no panic");
    until_lost(&set).await;
    primary.start().await.expect("started");
    until_writable(&set).await;
    assert_eq!(
        set.resolve(&in_doubt).await.expect("an answer"),
        CommitOutcome::RolledBack,
        "after the crash"
    );
    give_id_again(primary, &in_doubt).await;
    assert_eq!(set.resolve(&in_doubt).await.expect("an answer"), CommitOutcome::RolledBack, "another's id");
    primary.restart().await.expect("restarted");
    until_writable(&set).await;
    assert_eq!(
        set.resolve(&in_doubt).await.expect("an answer"),
        CommitOutcome::RolledBack,
        "a clean restart"
    );
    primary.kill().await.expect("killed");
    until_lost(&set).await;
    primary.start().await.expect("started");
    until_writable(&set).await;
    assert_eq!(set.resolve(&in_doubt).await.expect("an answer"), CommitOutcome::RolledBack, "a second crash");

    // Writes from before a crash are known after it.
    hold_when_written(primary).await;
    let in_doubt = insert(&set);
    until_waiting(primary, "SyncRep").await;
    primary.kill().await.expect("killed");
    let in_doubt = in_doubt.await.expect("no panic");
    primary.start().await.expect("started");
    assert_eq!(set.resolve(&in_doubt).await.expect("an answer"), CommitOutcome::Committed);
    assert!(has_row(primary).await);
}
