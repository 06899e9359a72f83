//! The cluster, the set and the service of a demonstration.

use anyhow::Context;
use pointsman::config::NodeConfig;
use pointsman::health::Status;
use pointsman::payments::http::Service;
use pointsman::testkit::{Cluster, Server, wait};
use pointsman::{Config, ReplicaSet};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::failure::{Failure, Outcome};
use crate::servers;

const REPLICAS: usize = 2;

/// The servers, the set and the service of a demonstration.
pub(super) struct Fixture {
    cluster: Cluster,
    set: ReplicaSet,
    url: String,
    service: JoinHandle<()>,
}

impl Fixture {
    /// Starts the servers, creates the tables and serves.
    pub(super) async fn start(listener: TcpListener) -> Outcome<Self> {
        let cluster =
            Cluster::builder().replicas(REPLICAS).start().await.context("no cluster could be started")?;
        let node = |(i, server): (usize, &Server)| {
            let node =
                if i == 0 { NodeConfig::primary(server.url()) } else { NodeConfig::replica(server.url()) };
            Ok(node?.with_name(server.name()))
        };
        let nodes = cluster.servers().iter().enumerate().map(node).collect::<Outcome<Vec<_>>>()?;
        let config = nodes.into_iter().fold(Config::builder(), |builder, node| builder.node(node)).build()?;
        let set = ReplicaSet::connect(config).await.context("the cluster cannot be used")?;
        servers::migrate(&set).await?;
        // Before the first read: a replica that has not replayed the migrations has no tables.
        cluster.wait_caught_up().await.context("the replicas don't follow")?;
        let url = format!("http://{}", listener.local_addr().context("the address cannot be told")?);
        let service = Service::new(set.clone());
        let service = tokio::spawn(async move {
            if let Err(error) = service.serve(listener, std::future::pending()).await {
                tracing::error!(%error, "the service ended");
            }
        });
        let fixture = Self { cluster, set, url, service };
        fixture.until_well().await?;
        Ok(fixture)
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(super) fn set(&self) -> &ReplicaSet {
        &self.set
    }

    /// Returns the server that takes writes, and its followers.
    pub(super) async fn roles(&self) -> anyhow::Result<(&Server, Vec<&Server>)> {
        let primary = self.cluster.current_primary().await.context("no server is the primary")?;
        let others = self.cluster.servers().iter().filter(|server| server.name() != primary.name());
        Ok((primary, others.collect()))
    }

    /// Returns the service's address.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Waits until every node serves.
    pub(super) async fn until_well(&self) -> Outcome {
        let is_healthy = async || self.set.health().status == Status::Healthy;
        wait::until("every node of the cluster is well", is_healthy).await.map_err(Failure::failed)
    }

    /// Ends the service.
    pub(super) async fn stop(self) {
        self.service.abort();
        servers::close(&self.set).await;
    }
}
