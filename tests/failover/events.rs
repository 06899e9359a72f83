//! Incidents that wake a monitor before its next probe, and nodes that are not what they seem.
//!
//! The monitors probe only every half minute here: the set noticed anything sooner because of an event.

use std::time::Duration;

use futures_util::future::join_all;
use pointsman::config::{ProbeSettings, ReadSettings, TimeoutSettings};
use pointsman::prelude::*;
use pointsman::testkit::wait::{until, until_node, until_writable};
use pointsman::testkit::{Cluster, Server, TestkitError};
use pointsman::topology::{Health, NodeRole, PrimaryStatus};
use pointsman::{Error, ReplicaSet, SqlState};
use tokio::time::{Instant, timeout};

use crate::fixture::{config_of, connect, promote, replica, until_serves_writes, until_serving_replica};
use crate::test_error::TestResult;
use crate::writes::sql;

/// A cluster that logs every statement, and a set that probes it twice a minute.
async fn fixture(replicas: usize) -> TestResult<(Cluster, ReplicaSet)> {
    let cluster = Cluster::builder().replicas(replicas).setting("log_statement", "all").start().await?;
    let probe = ProbeSettings { interval: Duration::from_secs(30), ..ProbeSettings::default() };
    let reads = ReadSettings { max_lag: Duration::from_secs(120), ..ReadSettings::default() };
    let set = connect(config_of(cluster.servers()).probe(probe).reads(reads)).await?;
    until_writable(&set).await?;
    Ok((cluster, set))
}

/// Returns the number of probes of a server, from its log.
fn probes(server: &Server) -> usize {
    let log = std::fs::read(server.data_dir().with_extension("log")).expect("a log");
    // Only a probe contains this word, and the log has the statement on one line.
    let is_probe = |line: &&str| line.contains("LOG:") && line.contains("pg_control_checkpoint");
    String::from_utf8_lossy(&log).lines().filter(is_probe).count()
}

/// Waits until a server was probed this often, well before the next regular probe.
async fn until_probes(server: &Server, wanted: usize) -> TestResult {
    let probed = until("the server is probed because of an event", async || probes(server) >= wanted);
    Ok(timeout(Duration::from_secs(2), probed).await??)
}

fn health(set: &ReplicaSet, server: &Server) -> Option<Health> {
    set.topology().node(server.name()).map(|node| node.health)
}

/// Breaks something, and returns the time until the node was known not to be healthy.
async fn noticed(
    set: &ReplicaSet,
    server: &Server,
    fault: impl Future<Output = Result<(), TestkitError>>,
) -> TestResult<Duration> {
    assert_eq!(health(set, server), Some(Health::Up));
    let began = Instant::now();
    fault.await?;
    until_node(set, server.name(), "is not healthy", |node| node.health != Health::Up).await?;
    Ok(began.elapsed())
}

/// Tries to write in a transaction that the caller made read-only, and returns the connection.
async fn refused_write(set: &ReplicaSet) -> TestResult<Conn<Write>> {
    let mut conn = set.write().await?;
    let create = async |tx: &mut Conn<Write>| sql(tx, "CREATE TABLE never (id int)").await;
    let refused: Result<(), Error> = conn.build_transaction().read_only().run(create).await;
    refused.expect_err("it may only read");
    Ok(conn)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_or_killed_server_is_noticed_before_its_next_probe() -> TestResult {
    let (cluster, set) = fixture(2).await?;
    let (one, other) = (cluster.replica(0), cluster.replica(1));
    for _ in 0..8 {
        let reads: Vec<_> = join_all((0..8).map(|_| set.read())).await;
        assert!(reads.iter().all(Result::is_ok));
    }

    // Break.
    let stopped = noticed(&set, one, one.stop()).await?;
    let ended = noticed(&set, other, other.stop_immediate()).await?;
    let primary = cluster.primary();
    let killed = noticed(&set, primary, primary.kill()).await?;

    println!("noticed after: stopped {stopped:?}, stopped at once {ended:?}, killed {killed:?}");
    for took in [stopped, ended, killed] {
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_sessions_and_refused_writes_cause_few_probes_and_change_no_health() -> TestResult {
    let (cluster, set) = fixture(1).await?;
    let (primary, replica) = (cluster.primary(), cluster.replica(0));
    let before = set.topology();
    let held = join_all((0..8).map(|_| set.read())).await;
    let before_fault = probes(replica);
    replica
        .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND query NOT LIKE '%pg_control%'")
        .await?;
    until_probes(replica, before_fault + 1).await?;
    for conn in held.into_iter().flatten() {
        let answer = diesel::select(diesel::dsl::sql::<diesel::sql_types::Integer>("1"));
        let outcome: QueryResult<i32> = answer.get_result(&conn).await;
        outcome.expect_err("its session was ended");
    }
    let more = probes(replica) - before_fault;
    println!("8 sessions ended at once: {more} probes");
    assert!(more <= 4, "many events are one: {more}");

    // A refused write wakes the monitor, too.
    let before_fault = probes(primary);
    let conn = refused_write(&set).await?;
    assert_eq!(conn.last_sqlstate(), Some(SqlState::READ_ONLY_SQL_TRANSACTION));
    drop(conn);
    until_probes(primary, before_fault + 1).await?;
    let after = set.topology();
    assert_eq!((&after.primary, after.nodes.len()), (&before.primary, before.nodes.len()));
    assert!(after.nodes.iter().all(|node| node.health == Health::Up && node.serves_reads), "{after:#?}");

    // Many refused writes: probes are at least 10 ms apart.
    let (before_fault, began) = (probes(primary), Instant::now());
    for _ in 0..200 {
        refused_write(&set).await?;
    }
    let (more, took) = (probes(primary) - before_fault, began.elapsed());
    println!("200 refused writes in {took:?}: {more} probes");
    let most = 2 + took.div_duration_f64(Duration::from_millis(10)) as usize;
    assert!(more <= most, "{more} probes in {took:?}");
    let after = set.topology();
    assert_eq!(after.primary, before.primary);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_was_rewound_to_a_standby_gets_no_more_writes() -> TestResult {
    let (cluster, set) = fixture(1).await?;
    let (old, new_primary) = (cluster.primary(), cluster.replica(0));

    // Break.
    old.stop().await?;
    new_primary.promote().await?;

    // Restore.
    old.rejoin(new_primary).await?;
    until_serves_writes(&set, new_primary).await?;
    let conn = set.write().await?;

    assert_eq!(conn.node(), new_primary.name());
    sql(&conn, "CREATE TABLE moved (id int)").await?;
    until_serving_replica(&set, old).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_nodes_and_stale_primaries_are_fenced_whatever_the_configuration_says() -> TestResult {
    let (cluster, foreign) =
        tokio::try_join!(Cluster::builder().replicas(2).start(), Cluster::builder().start())?;
    let (old, new_primary) = (cluster.primary(), cluster.replica(0));
    let foreign = replica(foreign.primary().url(), "foreign");
    let config = config_of(&cluster.servers()[..2]).node(foreign).build()?;
    let set = ReplicaSet::connect(config).await?;
    until_node(&set, "foreign", "is foreign, and serves no reads", |node| {
        node.role == NodeRole::Foreign && !node.serves_reads
    })
    .await?;
    for _ in 0..50 {
        assert_ne!(set.read().await?.node(), "foreign");
    }
    let report = serde_json::to_value(set.health())?;
    assert_eq!(report["nodes"][2]["role"], "foreign", "{report}");
    assert_eq!(report["status"], "degraded", "{report}");

    // Break.
    old.pause().await?;
    promote(&set, new_primary).await?;

    // A reconfiguration with the old primary alone must not make the set forget its successor.
    old.resume().await?;
    let config = config_of([old]).build()?;
    set.reconfigure(config).await?;

    let role = set.topology().node(old.name()).map(|node| node.role);
    assert_eq!(role, Some(NodeRole::StalePrimary));
    assert_eq!(set.topology().primary, PrimaryStatus::None);
    let all = config_of(&cluster.servers()[..2]).build()?;
    set.reconfigure(all).await?;
    until_writable(&set).await?;
    assert_eq!(set.write().await?.node(), new_primary.name());
    Ok(())
}

/// An operator was not schema-qualified: a role with its own operator before `pg_catalog` had every node marked down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_in_the_search_path_of_the_role_do_not_change_what_probes_see() -> TestResult {
    let cluster = Cluster::builder().replicas(1).start().await?;
    let shadowing = "\
        CREATE SCHEMA shadow; GRANT USAGE ON SCHEMA shadow TO app; \
        CREATE FUNCTION shadow.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT true'; \
        CREATE FUNCTION shadow.pg_xact_status(xid8) RETURNS text LANGUAGE sql AS $$SELECT 'aborted'$$; \
        CREATE FUNCTION shadow.pg_current_wal_insert_lsn() RETURNS pg_lsn LANGUAGE sql AS $$SELECT '0/0'::pg_lsn$$; \
        CREATE FUNCTION shadow.boom(timestamptz, timestamptz) RETURNS interval LANGUAGE plpgsql AS \
            $$BEGIN RAISE EXCEPTION 'boom'; END$$; \
        CREATE OPERATOR shadow.- (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = shadow.boom); \
        ALTER ROLE app SET search_path = shadow, pg_catalog, public; \
        CREATE TABLE numbers (id int); INSERT INTO numbers VALUES (1);";
    cluster.primary().execute(shadowing).await?;
    cluster.wait_caught_up().await?;
    let set = connect(config_of(cluster.servers())).await?;
    let is_superuser = "SELECT rolsuper FROM pg_roles WHERE rolname = 'app'";
    assert_eq!(cluster.primary().query_value(is_superuser).await?, "f", "and without a privilege");
    until_writable(&set).await?;
    assert_eq!(set.write().await?.node(), "primary");
    assert_eq!(set.read().await?.node(), cluster.replica(0).name());
    Ok(())
}

/// The start waited for a lagging replica as long as one probe's interval, instead of `timeouts.connect`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_waits_for_a_lagging_replica_only_within_the_connect_timeout() -> TestResult {
    let cluster = Cluster::builder().replicas(1).start().await?;

    // Break.
    cluster.replica(0).disconnect_from_primary().await?;
    cluster.primary().execute("CREATE TABLE late (id int)").await?;
    let timeouts = TimeoutSettings { connect: Duration::from_millis(500), ..TimeoutSettings::default() };
    let probe = ProbeSettings { interval: Duration::from_secs(5), ..ProbeSettings::default() };
    let reads =
        ReadSettings { max_lag: Duration::from_secs(60), max_lag_bytes: Some(1), ..ReadSettings::default() };
    let config = config_of(cluster.servers()).timeouts(timeouts).probe(probe).reads(reads).build()?;
    let began = Instant::now();
    let set = ReplicaSet::connect(config).await?;

    let took = began.elapsed();
    assert!(took < Duration::from_millis(1500), "{took:?}");
    assert!(set.topology().reads_on_primary_only());
    Ok(())
}
