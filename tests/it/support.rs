//! Helpers that the tests share.

pub(crate) mod pgbouncer;

use std::time::Duration;

use diesel::sql_types::Text;
use pointsman::config::{ConfigBuilder, PoolSettings, ProbeSettings, TimeoutSettings};
use pointsman::health::Status;
use pointsman::prelude::*;
use pointsman::testkit::wait::until;
use pointsman::testkit::{Cluster, Server};
use pointsman::{Config, ReplicaSet, assume_read_only};

/// A configuration of these servers, the first of them as the primary.
pub(crate) fn config_of<'s>(servers: impl IntoIterator<Item = &'s Server>) -> Config {
    builder_of(servers).build().expect("a valid configuration")
}

/// The beginning of a configuration of these servers, the first of them as the primary.
pub(crate) fn builder_of<'s>(servers: impl IntoIterator<Item = &'s Server>) -> ConfigBuilder {
    urls_of(servers.into_iter().map(Server::url))
}

/// The beginning of a configuration of the servers at these URLs, the first of them as the primary.
pub(crate) fn urls_of(urls: impl IntoIterator<Item = String>) -> ConfigBuilder {
    urls.into_iter().enumerate().fold(Config::builder(), |builder, (i, url)| {
        if i == 0 { builder.primary(url) } else { builder.replica(url) }
    })
}

/// A set of these servers, the first of them as the primary.
pub(crate) async fn set_of<'s>(servers: impl IntoIterator<Item = &'s Server>) -> ReplicaSet {
    ReplicaSet::connect(config_of(servers)).await.expect("a set")
}

/// A set with this configuration.
pub(crate) async fn start(builder: ConfigBuilder) -> ReplicaSet {
    ReplicaSet::connect(builder.build().expect("a valid configuration")).await.expect("a set")
}

/// A cluster with this number of replicas.
pub(crate) async fn start_cluster(replicas: usize) -> Cluster {
    Cluster::builder().replicas(replicas).start().await.unwrap()
}

/// A cluster with this number of replicas, and a set of it.
pub(crate) async fn fixture(replicas: usize) -> (Cluster, ReplicaSet) {
    let cluster = start_cluster(replicas).await;
    let set = connect(&cluster).await;
    (cluster, set)
}

/// A cluster on which `sql` was run, and a set with other settings, which is healthy.
pub(crate) async fn fixture_with(
    replicas: usize,
    sql: &str,
    settings: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
) -> (Cluster, ReplicaSet) {
    let cluster = start_cluster(replicas).await;
    cluster.primary().execute(sql).await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    let set = start(settings(builder_of(cluster.servers()))).await;
    until("the set is healthy", async || set.health().status == Status::Healthy).await.unwrap();
    (cluster, set)
}

/// A set of a whole cluster.
pub(crate) async fn connect(cluster: &Cluster) -> ReplicaSet {
    set_of(cluster.servers()).await
}

/// Pools of this many connections; the other settings are the defaults.
pub(crate) fn pools_of(max_size: u32) -> PoolSettings {
    PoolSettings { max_size, ..PoolSettings::default() }
}

/// The deadline of a checkout; the other settings are the defaults.
pub(crate) fn checkout_within(checkout: Duration) -> TimeoutSettings {
    TimeoutSettings { checkout, ..TimeoutSettings::default() }
}

/// Monitors that don't mark a node down while a test stalls its network for a moment.
pub(crate) fn patient_probes() -> ProbeSettings {
    ProbeSettings { timeout: Duration::from_secs(5), ..ProbeSettings::default() }
}

#[derive(QueryableByName)]
struct Value {
    #[diesel(sql_type = Text)]
    value: String,
}

/// Runs raw SQL and returns its single column, named `value`, as text. Only the server stops it from writing.
pub(crate) async fn value<I: Intent>(conn: &Conn<I>, sql: &str) -> QueryResult<String> {
    let query = format!("SELECT value::text AS value FROM ({sql}) AS q(value)");
    let row: Value = assume_read_only(diesel::sql_query(query)).get_result(conn.as_read()).await?;
    Ok(row.value)
}

/// Runs raw SQL on any connection, past the types.
pub(crate) async fn smuggle<I: Intent>(conn: &Conn<I>, sql: &str) -> QueryResult<usize> {
    assume_read_only(diesel::sql_query(sql.to_owned())).execute(conn.as_read()).await
}

/// The server process behind a connection.
pub(crate) async fn backend<I: Intent>(conn: &Conn<I>) -> String {
    value(conn, "SELECT pg_backend_pid()").await.expect("a backend")
}

/// Returns the number of a program's sessions at a server.
pub(crate) async fn sessions(server: &Server, application_name: &str) -> u32 {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{application_name}'");
    server.query_value(&sql).await.expect("a count").parse().expect("a number")
}

/// Connections of the set that are handed out, over all nodes.
pub(crate) fn in_use(set: &ReplicaSet) -> u32 {
    set.health().nodes.iter().map(|node| node.in_use).sum()
}
