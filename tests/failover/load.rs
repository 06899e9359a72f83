//! The load that runs through every incident, and the checks at its end.

use std::sync::Arc;
use std::time::Duration;

use pointsman::prelude::*;
use pointsman::testkit::{Cluster, Load, LoadReport, Server, WriteOutcome};
use pointsman::topology::Topology;
use pointsman::{CheckoutError, Config, Error, ReplicaSet};
use tokio::time::{Instant, timeout};

diesel::table! {
    /// One row per write.
    acks (id) {
        id -> BigInt,
    }
}

pub(crate) const READS_PER_SECOND: u32 = 500;
pub(crate) const WRITES_PER_SECOND: u32 = 100;

/// A cluster, a set of all its nodes, and a table to write to.
pub(crate) async fn scene(replicas: usize) -> (Cluster, ReplicaSet) {
    scene_with(replicas, |config| config).await
}

/// As [`scene`], with other settings.
pub(crate) async fn scene_with(
    replicas: usize,
    settings: impl FnOnce(pointsman::config::ConfigBuilder) -> pointsman::config::ConfigBuilder,
) -> (Cluster, ReplicaSet) {
    // With RUST_LOG set, the set's log is printed.
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    let cluster = Cluster::builder().replicas(replicas).start().await.expect("a cluster");
    let config = settings(config_of(cluster.servers())).build().expect("a valid configuration");
    let set = ReplicaSet::connect(config).await.expect("a set");
    let conn = set.write().await.expect("a primary");
    diesel::sql_query("CREATE TABLE acks (id bigint PRIMARY KEY)").execute(&conn).await.expect("a table");
    drop(conn);
    cluster.wait_caught_up().await.expect("replicas that follow");
    until(&set, "all replicas serve", |topology| topology.nodes.iter().all(|node| node.serves_reads)).await;
    warm_up(&set).await;
    (cluster, set)
}

/// Opens the connections that a steady load would have opened long ago.
async fn warm_up(set: &ReplicaSet) {
    for _ in 0..20 {
        let reads = futures_util::future::join_all((0..20).map(|_| read_surely(set)));
        let writes = futures_util::future::join_all((0..5).map(|_| set.write()));
        let (reads, writes) = tokio::join!(reads, writes);
        assert!(
            reads.iter().all(Result::is_ok) && writes.iter().all(Result::is_ok),
            "all is well before the incident"
        );
    }
}

/// A configuration in which nodes have the names of their servers.
pub(crate) fn config_of<'s>(
    servers: impl IntoIterator<Item = &'s Server>,
) -> pointsman::config::ConfigBuilder {
    use pointsman::config::NodeConfig;
    let node = |(i, server): (usize, &Server)| {
        let node = if i == 0 { NodeConfig::primary(server.url()) } else { NodeConfig::replica(server.url()) };
        node.expect("a valid URL").with_name(server.name())
    };
    servers.into_iter().enumerate().map(node).fold(Config::builder(), |builder, node| builder.node(node))
}

/// Reads through `run_read`, writes through `run_write`.
pub(crate) fn start(set: &ReplicaSet) -> Load {
    start_with(set, false)
}

/// Reads through a plain `read()`, which is not repeated.
pub(crate) fn start_plain(set: &ReplicaSet) -> Load {
    start_with(set, true)
}

fn start_with(set: &ReplicaSet, plain: bool) -> Load {
    let (reader, writer) = (set.clone(), set.clone());
    let read = move |_| {
        let set = reader.clone();
        async move {
            let outcome = if plain { read_once(&set).await } else { read_surely(&set).await };
            outcome.map(drop).map_err(|error| format!("{error}: {error:?}"))
        }
    };
    let write = move |id: u64| {
        let set = writer.clone();
        async move {
            match write_row(&set, i64::try_from(id).expect("a small number")).await {
                Ok(()) => WriteOutcome::Acknowledged,
                Err(Error::OutcomeUnknown(unknown)) => WriteOutcome::Unknown(unknown.to_string()),
                Err(error) => WriteOutcome::Failed(error.to_string()),
            }
        }
    };
    Load::start(READS_PER_SECOND, WRITES_PER_SECOND, read, write)
}

async fn read_surely(set: &ReplicaSet) -> Result<Option<i64>, Error> {
    set.run_read(async |conn| Ok(acks::table.select(acks::id).first(conn).await.optional()?)).await
}

async fn read_once(set: &ReplicaSet) -> Result<Option<i64>, Error> {
    let conn = set.read().await?;
    Ok(acks::table.select(acks::id).first(&conn).await.optional()?)
}

/// One row, in a transaction.
pub(crate) async fn write_row(set: &ReplicaSet, id: i64) -> Result<(), Error> {
    set.run_write(async |tx| {
        diesel::insert_into(acks::table).values(acks::id.eq(id)).execute(tx).await?;
        Ok(())
    })
    .await
}

/// Waits until the topology meets a condition.
pub(crate) async fn until(set: &ReplicaSet, what: &str, condition: impl FnMut(&Arc<Topology>) -> bool) {
    let mut topology = set.watch();
    let waited = timeout(Duration::from_secs(30), topology.wait_for(condition)).await;
    assert!(waited.is_ok(), "it never happened: {what}; {:#?}", set.topology());
}

/// Waits until a write succeeds again.
pub(crate) async fn until_writable(set: &ReplicaSet) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match set.write().await {
            Ok(_) => return,
            Err(error) => assert!(Instant::now() < deadline, "no writes: {error}"),
        }
    }
}

/// Returns the acknowledged writes that are not on a server.
pub(crate) async fn lost_on(server: &Server, record: &LoadReport) -> Vec<u64> {
    let ids = server.query_value("SELECT coalesce(string_agg(id::text, ','), '') FROM acks").await;
    let ids = ids.expect("the server answers");
    let there: std::collections::HashSet<u64> = ids.split(',').filter_map(|id| id.parse().ok()).collect();
    record.acknowledged().filter(|id| !there.contains(id)).collect()
}

/// Prints the measurements.
pub(crate) fn report(incident: &str, record: &LoadReport) {
    println!("{incident}: {record}");
    for read in record.reads.iter().filter(|read| read.took() > Duration::from_millis(150)) {
        tracing::debug!(id = read.id, took = ?read.took(), ago = ?read.began.elapsed(), "a slow read");
    }
}

/// Returns `true` if a write was refused because of split brain.
pub(crate) fn is_split_brain(error: &CheckoutError) -> bool {
    matches!(error, CheckoutError::SplitBrain { .. })
}
