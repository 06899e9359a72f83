//! What the tests share.

use pointsman::testkit::{Cluster, Server};
use pointsman::{Config, ReplicaSet};

/// A configuration of these servers, the first of them as the primary.
pub(crate) fn config_of<'s>(servers: impl IntoIterator<Item = &'s Server>) -> Config {
    let mut builder = Config::builder();
    for (i, server) in servers.into_iter().enumerate() {
        builder = if i == 0 { builder.primary(server.url()) } else { builder.replica(server.url()) };
    }
    builder.build().expect("a valid configuration")
}

/// A set of these servers, the first of them as the primary.
pub(crate) async fn set_of<'s>(servers: impl IntoIterator<Item = &'s Server>) -> ReplicaSet {
    ReplicaSet::connect(config_of(servers)).await.expect("a set")
}

/// A set of a whole cluster.
pub(crate) async fn connect(cluster: &Cluster) -> ReplicaSet {
    set_of(cluster.servers()).await
}
