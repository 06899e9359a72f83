//! A primary and its replicas.

use super::builder::ClusterBuilder;
use super::error::{Result, TestkitError};
use super::poll::until;
use super::server::Server;
use super::watchdog::Watchdog;
use crate::lsn::Lsn;
use futures_util::future::try_join_all;
use std::path::Path;

/// Runs a PostgreSQL primary and its replicas until it is dropped.
///
/// Dropping it ends every server and removes the folder; the same happens when the test panics, exits or is killed.
/// Clones of its servers may outlive it, but those servers no longer answer.
///
/// # Examples
///
/// ```
/// use pointsman::testkit::Cluster;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> pointsman::testkit::Result<()> {
/// let cluster = Cluster::builder().replicas(2).start().await?;
/// assert_eq!(cluster.primary().name(), "primary");
/// assert_eq!(cluster.replica(1).name(), "replica-2");
/// assert_eq!(cluster.urls().len(), 3);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Cluster {
    // Dropped before the servers, which then find their processes ended and reap them.
    watchdog: Watchdog,
    servers: Vec<Server>,
}

impl Cluster {
    /// Returns a builder for a cluster.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::new()
    }

    pub(super) fn new(servers: Vec<Server>, watchdog: Watchdog) -> Self {
        Self { watchdog, servers }
    }

    /// Returns the server that *started* as the primary.
    ///
    /// The server keeps this place in the list after a failover; [`current_primary`](Self::current_primary) asks the
    /// servers.
    pub fn primary(&self) -> &Server {
        &self.servers[0]
    }

    /// Returns the replica of the given index, from 0.
    ///
    /// # Panics
    ///
    /// Panics if there are fewer replicas, as the index of a slice does.
    pub fn replica(&self, index: usize) -> &Server {
        &self.replicas()[index]
    }

    /// Returns the servers that started as replicas.
    pub fn replicas(&self) -> &[Server] {
        &self.servers[1..]
    }

    /// Returns all servers, the primary first.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Returns the URLs of the application, the primary's first.
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(Server::url).collect()
    }

    /// Returns the folder that contains the cluster.
    pub fn folder(&self) -> &Path {
        self.watchdog.folder()
    }

    /// Finds the server that takes writes: the running primary on the highest timeline.
    ///
    /// # Errors
    ///
    /// [`TestkitError::State`] if all servers that run are standbys, and [`TestkitError::Timeout`] if
    /// one of them doesn't answer because it is paused.
    pub async fn current_primary(&self) -> Result<&Server> {
        let mut found: Option<(&Server, String)> = None;
        for server in self.servers.iter().filter(|server| server.is_running()) {
            if server.is_in_recovery().await? {
                continue;
            }
            // Eight digits of the timeline come first; hexadecimal of one length compares as text.
            let file = server.query_value("SELECT pg_walfile_name(pg_current_wal_insert_lsn())").await?;
            if found.as_ref().is_none_or(|(_, best)| file.get(..8) > best.get(..8)) {
                found = Some((server, file));
            }
        }
        found.map(|(server, _)| server).ok_or(TestkitError::State {
            server: "no server".to_owned(),
            is: "takes writes",
            remedy: "promote a replica or start the primary",
        })
    }

    /// Waits until every running standby has replayed all WAL written so far.
    ///
    /// # Errors
    ///
    /// [`TestkitError::Timeout`] if a standby doesn't get there, because its replay or its process is paused or it has
    /// lost its primary.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(cluster: pointsman::testkit::Cluster) -> pointsman::testkit::Result<()> {
    /// cluster.primary().execute("INSERT INTO train VALUES (12)").await?;
    /// cluster.wait_caught_up().await?;
    /// cluster.replica(0).query_value("SELECT 1 FROM train WHERE number = 12").await?;
    /// # Ok(()) }
    /// ```
    pub async fn wait_caught_up(&self) -> Result<()> {
        let primary = self.current_primary().await?;
        let written = primary.query_value("SELECT pg_current_wal_insert_lsn() - '0/0'").await?;
        let wanted = Lsn::new(written.parse().unwrap_or(0)).end_of_last_record().as_u64();
        let query = format!("SELECT NOT pg_is_in_recovery() OR pg_last_wal_replay_lsn() - '0/0' >= {wanted}");
        let running = self.servers.iter().filter(|server| server.is_running());
        let waits = running.map(|server| {
            let query = &query;
            async move {
                let session = server.maintenance_session().await?;
                let session = &session;
                let waiting_for = "to replay what the primary has written";
                until(server.name(), waiting_for, || async move { Ok(session.value(query).await? == "t") })
                    .await
            }
        });
        try_join_all(waits).await.map(drop)
    }
}
