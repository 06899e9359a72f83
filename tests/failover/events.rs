//! Incidents that wake a monitor before its next probe, and nodes that are not what they seem.
//!
//! The monitors probe only every half minute here: the set noticed anything sooner because of an event.

use std::time::Duration;

use pointsman::config::{ConfigBuilder, NodeConfig, ProbeSettings, ReadSettings, TimeoutSettings};
use pointsman::prelude::*;
use pointsman::testkit::{Cluster, Server};
use pointsman::topology::{Health, NodeRole, PrimaryStatus};
use pointsman::{Config, Error, ReplicaSet, SqlState};
use tokio::time::{Instant, sleep};

use crate::load::{config_of, until, until_writable};
use crate::writes::sql;

/// Probes twice a minute.
fn rarely(config: ConfigBuilder) -> ConfigBuilder {
    let probe = ProbeSettings { interval: Duration::from_secs(30), ..ProbeSettings::default() };
    let reads = ReadSettings { max_lag: Duration::from_secs(120), ..ReadSettings::default() };
    config.probe(probe).reads(reads)
}

/// A cluster that logs every statement, and a set that rarely probes it.
async fn scene(replicas: usize) -> (Cluster, ReplicaSet) {
    let builder = Cluster::builder().replicas(replicas).setting("log_statement", "all");
    let cluster = builder.start().await.expect("a cluster");
    let config = rarely(config_of(cluster.servers())).build().expect("valid");
    let set = ReplicaSet::connect(config).await.expect("a set");
    until_writable(&set).await;
    until(&set, "all serve", |topology| topology.nodes.iter().all(|node| node.serves_reads)).await;
    (cluster, set)
}

/// Returns the number of statements at a server that contain these words.
fn asked(server: &Server, words: &str) -> usize {
    let log = std::fs::read(server.data_dir().with_extension("log")).expect("a log");
    String::from_utf8_lossy(&log).lines().filter(|line| line.contains("LOG:") && line.contains(words)).count()
}

/// Returns the number of probes of a server.
fn looks(server: &Server) -> usize {
    // The log has the statement on one line.
    asked(server, "pg_control_checkpoint")
}

async fn until_looks(server: &Server, wanted: usize) {
    let deadline = Instant::now() + Duration::from_secs(2);
    while looks(server) < wanted {
        assert!(Instant::now() < deadline, "{} looks, not {wanted}", looks(server));
        sleep(Duration::from_millis(5)).await;
    }
}

fn health(set: &ReplicaSet, server: &Server) -> Option<Health> {
    set.topology().node(server.name()).map(|node| node.health)
}

/// Breaks something, and returns the time until the node was known not to be healthy.
async fn noticed(set: &ReplicaSet, server: &Server, fault: impl Future<Output = ()>) -> Duration {
    assert_eq!(health(set, server), Some(Health::Up));
    let began = Instant::now();
    fault.await;
    let name = server.name().to_owned();
    until(set, "the fault is noticed", |topology| {
        topology.node(&name).is_some_and(|node| node.health != Health::Up)
    })
    .await;
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_is_noticed_at_once() {
    let (cluster, set) = scene(2).await;
    let (one, other) = (cluster.replica(0), cluster.replica(1));
    for _ in 0..8 {
        let reads: Vec<_> = futures_util::future::join_all((0..8).map(|_| set.read())).await;
        assert!(reads.iter().all(Result::is_ok));
    }
    let stopped = noticed(&set, one, async { one.stop().await.expect("stopped") }).await;
    let ended = noticed(&set, other, async { other.stop_immediate().await.expect("ended") }).await;
    let primary = cluster.primary();
    let killed = noticed(&set, primary, async { primary.kill().await.expect("killed") }).await;
    println!("noticed after: stopped {stopped:?}, stopped at once {ended:?}, killed {killed:?}");
    for took in [stopped, ended, killed] {
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_makes_the_monitor_look_and_changes_nothing() {
    let (cluster, set) = scene(1).await;
    let (primary, replica) = (cluster.primary(), cluster.replica(0));
    let before = set.topology();
    let held = futures_util::future::join_all((0..8).map(|_| set.read())).await;
    let looked = looks(replica);
    replica
        .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND query NOT LIKE '%pg_control%'")
        .await
        .expect("terminated");
    until_looks(replica, looked + 1).await;
    for conn in held.into_iter().flatten() {
        let answer = diesel::select(diesel::dsl::sql::<diesel::sql_types::Integer>("1"));
        let outcome: QueryResult<i32> = answer.get_result(&conn).await;
        outcome.expect_err("its session was ended");
    }
    let more = looks(replica) - looked;
    println!("8 sessions ended at once: {more} looks");
    assert!(more <= 4, "many events are one: {more}");

    // Refused writes: the caller asked for a read-only transaction.
    let mut conn = set.write().await.expect("a primary");
    let looked = looks(primary);
    let refused: Result<(), Error> = conn
        .build_transaction()
        .read_only()
        .run(async |tx| sql(tx, "CREATE TABLE never (id int)").await)
        .await;
    refused.expect_err("it may only read");
    assert_eq!(conn.last_sqlstate(), Some(SqlState::READ_ONLY_SQL_TRANSACTION));
    drop(conn);
    until_looks(primary, looked + 1).await;
    let after = set.topology();
    assert_eq!((&after.primary, after.nodes.len()), (&before.primary, before.nodes.len()));
    assert!(after.nodes.iter().all(|node| node.health == Health::Up && node.serves_reads), "{after:#?}");

    // A storm of refused writes.
    let (looked, began) = (looks(primary), Instant::now());
    for _ in 0..200 {
        let mut conn = set.write().await.expect("a primary");
        let refused: Result<(), Error> = conn
            .build_transaction()
            .read_only()
            .run(async |tx| sql(tx, "CREATE TABLE never (id int)").await)
            .await;
        refused.expect_err("it may only read");
    }
    let (more, took) = (looks(primary) - looked, began.elapsed());
    println!("200 refused writes in {took:?}: {more} looks");
    assert!(more as u128 <= 2 + took.as_millis() / 10, "{more} looks in {took:?}");
    let after = set.topology();
    assert_eq!(after.primary, before.primary);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_became_a_standby_behind_its_address_gets_no_more_writes() {
    let (cluster, set) = scene(1).await;
    let (old, heir) = (cluster.primary(), cluster.replica(0));
    old.stop().await.expect("stopped");
    heir.promote().await.expect("promoted");
    old.rejoin(heir).await.expect("rejoined");
    let name = heir.name().to_owned();
    until(&set, "the new primary is seen", |topology| {
        topology.node(&name).is_some_and(|node| node.serves_writes)
    })
    .await;
    let conn = set.write().await.expect("a primary");
    assert_eq!(conn.node(), heir.name());
    sql(&conn, "CREATE TABLE moved (id int)").await.expect("a write");
    let name = old.name().to_owned();
    until(&set, "the old one serves as a replica", |topology| {
        topology.node(&name).is_some_and(|node| node.role == NodeRole::Replica && node.serves_reads)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_stale_primaries_are_fenced_whatever_is_configured() {
    let (cluster, stranger) =
        tokio::try_join!(Cluster::builder().replicas(2).start(), Cluster::builder().start())
            .expect("clusters");
    let (old, heir) = (cluster.primary(), cluster.replica(0));
    let foreign = || NodeConfig::replica(stranger.primary().url()).expect("a URL").with_name("foreign");
    let config = config_of(&cluster.servers()[..2]).node(foreign()).build().expect("valid");
    let set = ReplicaSet::connect(config).await.expect("a set");
    until(&set, "the stranger is known", |topology| {
        topology.node("foreign").is_some_and(|node| node.role == NodeRole::Foreign && !node.serves_reads)
    })
    .await;
    for _ in 0..50 {
        assert_ne!(set.read().await.expect("a read").node(), "foreign");
    }
    let report = serde_json::to_value(set.health()).expect("a document");
    assert_eq!(report["nodes"][2]["role"], "foreign", "{report}");
    assert_eq!(report["status"], "degraded", "{report}");

    old.pause().await.expect("paused");
    promote(&set, heir).await;
    // A reconfiguration with the old primary alone must not make the set forget its successor.
    old.resume().await.expect("resumed");
    let config = config_of([old]).build().expect("valid");
    set.reconfigure(config).await.expect("reconfigured");
    let role = set.topology().node(old.name()).map(|node| node.role);
    assert_eq!(role, Some(NodeRole::StalePrimary));
    assert_eq!(set.topology().primary, PrimaryStatus::None);
    let all = config_of(&cluster.servers()[..2]).build().expect("valid");
    set.reconfigure(all).await.expect("reconfigured");
    until_writable(&set).await;
    assert_eq!(set.write().await.expect("a primary").node(), heir.name());
}

async fn promote(set: &ReplicaSet, heir: &Server) {
    heir.promote().await.expect("promoted");
    until(set, "the new primary is seen", |topology| {
        topology.node(heir.name()).is_some_and(|node| node.serves_writes)
    })
    .await;
}

/// An operator was not schema-qualified: a role with its own operator before `pg_catalog` had every node marked down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_search_path_deceives_no_probe() {
    let cluster = Cluster::builder().replicas(1).start().await.expect("a cluster");
    let lies = "\
        CREATE SCHEMA lies; GRANT USAGE ON SCHEMA lies TO app; \
        CREATE FUNCTION lies.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT true'; \
        CREATE FUNCTION lies.pg_xact_status(xid8) RETURNS text LANGUAGE sql AS $$SELECT 'aborted'$$; \
        CREATE FUNCTION lies.pg_current_wal_insert_lsn() RETURNS pg_lsn LANGUAGE sql AS $$SELECT '0/0'::pg_lsn$$; \
        CREATE FUNCTION lies.boom(timestamptz, timestamptz) RETURNS interval LANGUAGE plpgsql AS \
            $$BEGIN RAISE EXCEPTION 'boom'; END$$; \
        CREATE OPERATOR lies.- (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = lies.boom); \
        ALTER ROLE app SET search_path = lies, pg_catalog, public; \
        CREATE TABLE truth (id int); INSERT INTO truth VALUES (1);";
    cluster.primary().execute(lies).await.expect("lies");
    cluster.wait_caught_up().await.expect("caught up");
    let (set, replica) =
        (ReplicaSet::connect(config_of(cluster.servers()).build().expect("valid")).await, cluster.replica(0));
    let set = set.expect("a set");
    let wrong = cluster.primary().query_value("SELECT rolsuper FROM pg_roles WHERE rolname = 'app'").await;
    assert_eq!(wrong.expect("an answer"), "f", "and without a privilege");
    until_writable(&set).await;
    until(&set, "both are well", |topology| topology.nodes.iter().all(|node| node.serves_reads)).await;
    assert_eq!(set.write().await.expect("a primary").node(), "primary");
    assert_eq!(set.read().await.expect("a read").node(), replica.name());
}

/// The start waited for a lagging replica as long as one probe's interval, instead of `timeouts.connect`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_waits_for_no_probe() {
    let cluster = Cluster::builder().replicas(1).start().await.expect("a cluster");
    cluster.replica(0).disconnect_from_primary().await.expect("disconnected");
    cluster.primary().execute("CREATE TABLE late (id int)").await.expect("a table");
    let timeouts = TimeoutSettings { connect: Duration::from_millis(500), ..TimeoutSettings::default() };
    let probe = ProbeSettings { interval: Duration::from_secs(5), ..ProbeSettings::default() };
    let reads =
        ReadSettings { max_lag: Duration::from_secs(60), max_lag_bytes: Some(1), ..ReadSettings::default() };
    let config: Config =
        config_of(cluster.servers()).timeouts(timeouts).probe(probe).reads(reads).build().expect("valid");
    let began = Instant::now();
    let set = ReplicaSet::connect(config).await.expect("a set");
    let took = began.elapsed();
    assert!(took < Duration::from_millis(1500), "{took:?}");
    assert!(set.topology().reads_on_primary_only());
}
