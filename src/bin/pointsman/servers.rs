//! The servers of a command: configured ones, or a temporary cluster.

use std::path::Path;

use anyhow::Context;
use pointsman::{Config, ReplicaSet};

use super::failure::Outcome;

/// Returns `true` if a file or the environment names the servers to use.
pub(super) fn are_configured(file: Option<&Path>) -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    file.is_some()
        || [
            "DATABASE_URL",
            "DATABASE_URL_FILE",
            "DATABASE_REPLICA_URL",
            "DATABASE_REPLICA_URL_FILE",
            "POINTSMAN_CONFIG",
        ]
        .into_iter()
        .any(is_set)
        || Path::new("pointsman.toml").exists()
}

/// Connects to the servers that are configured.
pub(super) async fn connect(file: Option<&Path>) -> Outcome<ReplicaSet> {
    let config = file.map_or_else(Config::from_env, Config::from_file)?;
    tracing::info!(%config, "connecting");
    Ok(ReplicaSet::connect(config).await.context("the nodes cannot be used")?)
}

/// A cluster that lives as long as the command.
#[cfg(feature = "testkit")]
pub(super) type OwnCluster = pointsman::testkit::Cluster;
/// Without the test kit there is none.
#[cfg(not(feature = "testkit"))]
pub(super) enum OwnCluster {}

/// Starts a cluster with this many replicas, and connects to it.
///
/// The settings of the environment apply to the cluster as well, except for the servers.
#[cfg(feature = "testkit")]
pub(super) async fn start_own(replicas: usize) -> Outcome<(ReplicaSet, OwnCluster)> {
    let cluster =
        OwnCluster::builder().replicas(replicas).start().await.context("no cluster could be started")?;
    let urls = cluster.urls();
    let (primary, replicas) = urls.split_first().context("a cluster has a primary")?;
    let own = [("DATABASE_URL", primary.clone()), ("DATABASE_REPLICA_URL", replicas.join(","))];
    let inherited = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        // A memory file belongs to the configured cluster.
        let is_own = name != "POINTSMAN_CONFIG" && name != "POINTSMAN_TOPOLOGY__MEMORY_FILE";
        (name.starts_with("POINTSMAN_") && is_own).then_some(())?;
        Some((name, value.into_string().ok()?))
    });
    let env = inherited.chain(own.map(|(name, value)| (name.to_owned(), value)));
    let config = Config::from_sources(None, env)?;
    let set = ReplicaSet::connect(config).await.context("the cluster cannot be used")?;
    Ok((set, cluster))
}

#[cfg(not(feature = "testkit"))]
pub(super) async fn start_own(_replicas: usize) -> Outcome<(ReplicaSet, OwnCluster)> {
    Err(super::failure::Failure::Usage(anyhow::anyhow!(
        "no servers are configured, and this program was built without the feature `testkit`, so it cannot start \
         some: set DATABASE_URL=postgres://user:password@host/database"
    )))
}

/// Delays the replay of every replica, once they have what was written so far.
#[cfg(feature = "testkit")]
pub(super) async fn delay_replay(cluster: &OwnCluster, delay: std::time::Duration) -> Outcome {
    cluster.wait_caught_up().await.context("the replicas do not follow")?;
    for replica in cluster.replicas() {
        replica.set_replay_delay(delay).await.context("a replica's replay cannot be delayed")?;
    }
    Ok(())
}

#[cfg(not(feature = "testkit"))]
pub(super) async fn delay_replay(cluster: &OwnCluster, _delay: std::time::Duration) -> Outcome {
    match *cluster {}
}

/// A fault of one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ReplicaFault {
    /// Replay stands still from then on.
    PauseReplay,
    /// The server is killed.
    KillReplica,
}

impl ReplicaFault {
    /// Lets it happen to the first replica.
    #[cfg(feature = "testkit")]
    pub(super) async fn apply(self, cluster: &OwnCluster) -> Outcome {
        let replica = cluster.replica(0);
        let applied = match self {
            Self::PauseReplay => replica.pause_replay().await,
            Self::KillReplica => replica.kill().await,
        };
        Ok(applied.with_context(|| format!("no {self:?}"))?)
    }

    #[cfg(not(feature = "testkit"))]
    pub(super) async fn apply(self, cluster: &OwnCluster) -> Outcome {
        match *cluster {}
    }
}

/// Applies the pending migrations of the payments tables, and returns their names.
pub(super) async fn migrate(set: &ReplicaSet) -> Outcome<Vec<String>> {
    let primary = set.write().await.context("no primary to migrate")?;
    let applied = pointsman::migrate::run(primary, pointsman::payments::MIGRATIONS).await;
    Ok(applied.context("the migrations could not be applied")?)
}

/// Closes the set at the end of a command.
///
/// Connections still in use are no reason to fail.
pub(super) async fn close(set: &ReplicaSet) {
    if let Err(error) = set.close().await {
        tracing::warn!(%error, "closing took too long");
    }
}
