//! Changes the configuration while traffic runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::{Keeper, Live, ReplicaSet, prepare, watch};
use crate::config::{Config, NodeConfig};
use crate::error::Error;
use crate::topology::{Node, Retired};

/// The effects of a change of the configuration.
#[derive(Debug)]
#[non_exhaustive]
pub struct Reconfigured {
    /// The added nodes, by name.
    pub added: Vec<String>,
    /// The nodes whose connection settings changed, such as the credentials, by name.
    pub changed: Vec<String>,
    /// The removed nodes, by name; they get no more work, and finish what they run.
    pub removed: Vec<String>,
    draining: Vec<Arc<Node>>,
    replaced: Vec<Retired>,
}

impl Reconfigured {
    /// Returns the number of earlier connections that are still in use.
    ///
    /// They lead to removed nodes, or have earlier settings.
    pub fn in_use(&self) -> u32 {
        let removed: u32 = self.draining.iter().map(|node| node.leased()).sum();
        removed + self.replaced.iter().map(Retired::leased).sum::<u32>()
    }

    /// Waits until all connections that are [in use](Self::in_use) were returned.
    ///
    /// After that, the servers of removed nodes may be stopped, and old credentials may be withdrawn.
    ///
    /// # Cancel safety
    ///
    /// The nodes are drained even if the future is dropped.
    pub async fn drained(&self) {
        while self.in_use() > 0 {
            // Returning a connection sends no signal, so poll. This happens rarely, and only after a change.
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl ReplicaSet {
    /// Applies another configuration while traffic runs.
    ///
    /// A node is the same as long as its name, host, port and database are. If so, it keeps its monitor, its role and
    /// its history, even if other settings change. New connections follow the new settings at once. Connections in use
    /// continue until they are returned, count against the new limits, and end if the node goes down or is fenced.
    ///
    /// Removed nodes get no more work, and their running statements finish. They are monitored until then, so a removed
    /// primary is fenced as soon as another one has taken over. New nodes are probed before this returns, within
    /// `timeouts.connect`. The set remembers its identity and its highest timeline, so a reconfiguration does not let
    /// an old primary back in. If `topology.memory_file` changed, the new file is read, and what it adds is remembered.
    ///
    /// # Errors
    ///
    /// [`Error::Node`] if a node's certificate files cannot be used,
    /// [`CheckoutError::Closed`](crate::CheckoutError::Closed) after [`close`](Self::close). In both cases nothing is
    /// changed.
    ///
    /// # Cancel safety
    ///
    /// The whole change is made before the first `await`; a future that is dropped later only stops waiting.
    ///
    /// ```no_run
    /// # async fn example(set: pointsman::ReplicaSet) -> Result<(), pointsman::Error> {
    /// let change = set.reconfigure(pointsman::Config::from_env()?).await?;
    /// change.drained().await;
    /// println!("these may be stopped now: {:?}", change.removed);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reconfigure(&self, config: Config) -> Result<Reconfigured, Error> {
        let config = Arc::new(config);
        let change = self.replace(&config)?;
        let (added, changed, removed) = (&change.added, &change.changed, &change.removed);
        tracing::info!(?added, ?changed, ?removed, "the configuration changed");
        self.wait_until_probed().await;
        Ok(change)
    }

    fn replace(&self, config: &Arc<Config>) -> Result<Reconfigured, Error> {
        // Held throughout, so that two simultaneous changes happen one after the other.
        let mut monitors = self.monitors();
        self.check_open()?;
        let before = self.config();
        let topology = &self.inner.topology;
        let old: Vec<Arc<Node>> = self.snapshot().nodes.iter().map(|view| Arc::clone(&view.node)).collect();
        // Include nodes that are still leaving, so that a node removed by mistake comes back with its history.
        let known = topology.nodes();
        let node = |node: &NodeConfig| match known.iter().find(|known| known.config().is_same_server(node)) {
            Some(known) => succeed(known, node, config),
            None => prepare(node, config),
        };
        let nodes = config.nodes().iter().map(node).collect::<Result<Vec<_>, _>>()?;
        let not_in =
            |nodes: &[Arc<Node>], node: &Arc<Node>| nodes.iter().all(|other| other.id() != node.id());
        let added =
            nodes.iter().filter(|node| not_in(&old, node)).map(|node| node.name().to_owned()).collect();
        let draining: Vec<_> = old.iter().filter(|node| not_in(&nodes, node)).cloned().collect();
        let removed = draining.iter().map(|node| node.name().to_owned()).collect();

        self.inner.live.load().limits.follow(config);
        let replaced = topology.replace(Arc::clone(config), nodes.clone());
        let changed = nodes.iter().filter(|node| {
            let same = |old: &&Arc<Node>| old.id() == node.id() && !node.shares_sessions_with(old);
            old.iter().any(|old| same(&old))
        });
        let changed = changed.map(|node| node.name().to_owned()).collect();
        let limits = Arc::clone(&self.inner.live.load().limits);
        self.inner.live.store(Arc::new(Live { config: Arc::clone(config), limits }));

        if before.memory_file() != config.memory_file() {
            *self.keeper() = Keeper::start(config.memory_file(), topology);
        }

        // A monitor whose own settings changed is restarted with the node's history.
        let same_probes = before.probe() == config.probe() && before.backoff() == config.backoff();
        let watched = topology.nodes();
        monitors.retain(|watch| same_probes && watched.iter().any(|node| node.id() == watch.node));
        for node in watched {
            if monitors.iter().all(|watch| watch.node != node.id()) {
                monitors.push(watch(&node, topology, config));
            }
        }
        Ok(Reconfigured { added, changed, removed, draining, replaced })
    }
}

fn succeed(known: &Node, node: &NodeConfig, config: &Config) -> Result<Arc<Node>, Error> {
    known
        .succeed(node, config)
        .map(Arc::new)
        .map_err(|source| Error::Node { node: node.name().to_owned(), source })
}
