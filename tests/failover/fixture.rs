//! The clusters and sets of the incidents, and waits for a server of theirs.

use pointsman::config::{ConfigBuilder, NodeConfig};
use pointsman::prelude::*;
use pointsman::testkit::wait::{until_all_serve, until_health, until_node, until_role};
use pointsman::testkit::{Cluster, Server};
use pointsman::topology::{Health, NodeRole};
use pointsman::{CheckoutError, Config, Error, ReplicaSet};
use tokio::time::Instant;

use crate::load::warm_up;
use crate::test_error::TestResult;

diesel::table! {
    /// One row per write.
    acks (id) {
        id -> BigInt,
    }
}

/// The statement that creates [`acks`].
pub(crate) const CREATE_ACKS: &str = "CREATE TABLE acks (id bigint PRIMARY KEY)";

/// A cluster, a set of all its nodes, and a table to write to.
pub(crate) async fn fixture(replicas: usize) -> TestResult<(Cluster, ReplicaSet)> {
    fixture_with(replicas, |config| config).await
}

/// As [`fixture`], with other settings.
pub(crate) async fn fixture_with(
    replicas: usize,
    settings: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
) -> TestResult<(Cluster, ReplicaSet)> {
    // With RUST_LOG set, the set's log is printed.
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    let cluster = Cluster::builder().replicas(replicas).start().await?;
    let set = ReplicaSet::connect(settings(config_of(cluster.servers())).build()?).await?;
    diesel::sql_query(CREATE_ACKS).execute(&set.write().await?).await?;
    cluster.wait_caught_up().await?;
    until_all_serve(&set).await?;
    warm_up(&set).await;
    Ok((cluster, set))
}

/// A cluster with two replicas and a table, and a set that reaches each node through its proxy.
pub(crate) async fn proxied_fixture() -> TestResult<(Cluster, ReplicaSet)> {
    let cluster = Cluster::builder().replicas(2).proxied().start().await?;
    cluster.primary().execute(CREATE_ACKS).await?;
    cluster.wait_caught_up().await?;
    let mut config = Config::builder();
    for (i, server) in cluster.servers().iter().enumerate() {
        let url = server.proxied_url().await?;
        let node = if i == 0 { NodeConfig::primary(url) } else { NodeConfig::replica(url) };
        config = config.node(node?.with_name(server.name()));
    }
    Ok((cluster, connect(config).await?))
}

/// A set all of whose nodes serve reads.
pub(crate) async fn connect(config: ConfigBuilder) -> TestResult<ReplicaSet> {
    let set = ReplicaSet::connect(config.build()?).await?;
    until_all_serve(&set).await?;
    Ok(set)
}

/// A configuration in which nodes have the names of their servers; the first server is the primary.
pub(crate) fn config_of<'s>(servers: impl IntoIterator<Item = &'s Server>) -> ConfigBuilder {
    let node = |(i, server): (usize, &Server)| {
        let node = if i == 0 { NodeConfig::primary(server.url()) } else { NodeConfig::replica(server.url()) };
        node.expect("the URL of a server is valid").with_name(server.name())
    };
    servers.into_iter().enumerate().map(node).fold(Config::builder(), ConfigBuilder::node)
}

/// A replica with another name.
pub(crate) fn replica(url: String, name: &str) -> NodeConfig {
    NodeConfig::replica(url).expect("the URL of a server is valid").with_name(name)
}

/// Inserts one row, in a transaction.
pub(crate) async fn write_row(set: &ReplicaSet, id: i64) -> Result<(), Error> {
    set.run_write(async |tx| {
        diesel::insert_into(acks::table).values(acks::id.eq(id)).execute(tx).await?;
        Ok(())
    })
    .await
}

/// Counts the rows at a server that meet a condition.
pub(crate) async fn count_acks(server: &Server, condition: &str) -> TestResult<u64> {
    let count = server.query_value(&format!("SELECT count(*) FROM acks WHERE {condition}")).await?;
    Ok(count.parse()?)
}

/// Promotes a server, and waits until the set writes to it; returns the instant at which the server took writes.
pub(crate) async fn promote(set: &ReplicaSet, server: &Server) -> TestResult<Instant> {
    let promoted = server.promote().await?;
    until_serves_writes(set, server).await?;
    Ok(promoted)
}

pub(crate) async fn until_serves_writes(set: &ReplicaSet, server: &Server) -> TestResult {
    Ok(until_node(set, server.name(), "serves writes", |node| node.serves_writes).await?)
}

pub(crate) async fn until_serves_reads(set: &ReplicaSet, server: &Server) -> TestResult {
    Ok(until_node(set, server.name(), "serves reads", |node| node.serves_reads).await?)
}

pub(crate) async fn until_left_out(set: &ReplicaSet, server: &Server) -> TestResult {
    Ok(until_node(set, server.name(), "serves no reads", |node| !node.serves_reads).await?)
}

/// Waits until a server is a replica that serves reads.
pub(crate) async fn until_serving_replica(set: &ReplicaSet, server: &Server) -> TestResult {
    let is_replica = "is a replica that serves reads";
    let until = until_node(set, server.name(), is_replica, |node| {
        node.role == NodeRole::Replica && node.serves_reads
    });
    Ok(until.await?)
}

pub(crate) async fn until_down(set: &ReplicaSet, server: &Server) -> TestResult {
    Ok(until_health(set, server.name(), Health::Down).await?)
}

pub(crate) async fn until_primary(set: &ReplicaSet, server: &Server) -> TestResult {
    Ok(until_role(set, server.name(), NodeRole::Primary).await?)
}

/// Waits until the role of a server is unknown, because the server is down.
pub(crate) async fn until_role_unknown(set: &ReplicaSet, server: &Server) -> TestResult {
    Ok(until_role(set, server.name(), NodeRole::Unknown).await?)
}

/// Returns the reason for which a node serves no reads, or an empty text.
pub(crate) fn reason(set: &ReplicaSet, node: &str) -> String {
    set.topology().node(node).and_then(|node| node.reason.clone()).unwrap_or_default()
}

/// Returns `true` if a write was refused because of split brain.
pub(crate) fn is_split_brain(error: &CheckoutError) -> bool {
    matches!(error, CheckoutError::SplitBrain { .. })
}
