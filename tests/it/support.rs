//! What the tests share.

use std::time::Duration;

use pointsman::testkit::{Cluster, Server};
use pointsman::{Config, ReplicaSet};
use tokio::time::{Instant, sleep};

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

/// Waits until a condition holds, and says after half a minute that it never did.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "it never happened: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
