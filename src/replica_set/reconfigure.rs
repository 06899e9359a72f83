//! Nodes that come and go while traffic runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::{Live, ReplicaSet, prepare, watch};
use crate::config::{Config, NodeConfig};
use crate::error::Error;
use crate::topology::{Node, Retired};

/// What a change of the configuration did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Reconfigured {
    /// Names of the nodes that are new.
    pub added: Vec<String>,
    /// Names of the nodes whose connections are opened in another way from now on: with other credentials, say.
    pub changed: Vec<String>,
    /// Names of the nodes that are gone; they get no more work, and finish what they have.
    pub removed: Vec<String>,
    draining: Vec<Arc<Node>>,
    replaced: Vec<Retired>,
}

impl Reconfigured {
    /// How many connections to removed nodes, or with the settings of before, are still in use.
    pub fn in_use(&self) -> u32 {
        let removed: u32 = self.draining.iter().map(|node| node.leased()).sum();
        removed + self.replaced.iter().map(Retired::leased).sum::<u32>()
    }

    /// Waits until all that is [in use](Self::in_use) was returned: then the servers of removed nodes may be stopped, and
    /// old credentials be withdrawn.
    ///
    /// # Cancel safety
    ///
    /// The nodes are drained whether anybody waits or not.
    pub async fn drained(&self) {
        while self.in_use() > 0 {
            // Connections come back without a word; this is asked rarely, and only after a change.
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl ReplicaSet {
    /// Goes over to another configuration while traffic runs.
    ///
    /// A node is the same as long as its name, host, port and database are. Then it keeps its monitor, its role, and
    /// what is known of it, whatever else changes. New connections follow the new settings at once; those that are in use
    /// go on until they are returned, count against the new limits, and end with the node if it is lost or fenced.
    ///
    /// Removed nodes get no more work; what runs on them finishes. They stay watched until then, so a removed primary
    /// is fenced as soon as another one has taken over. New ones are looked at before this returns, within
    /// `timeouts.connect`. The set remembers its identity and its highest timeline, so a reconfiguration
    /// does not let an old primary back in.
    ///
    /// # Errors
    ///
    /// [`Error::Node`] where a node's certificate files cannot be used, [`CheckoutError::Closed`](crate::CheckoutError::Closed) after
    /// [`close`](Self::close); nothing is changed then.
    ///
    /// # Cancel safety
    ///
    /// The change is made as a whole before the first `await`; dropped later, only the waiting ends.
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
        self.settled().await;
        Ok(change)
    }

    fn replace(&self, config: &Arc<Config>) -> Result<Reconfigured, Error> {
        // Held throughout, so that two changes at once come one after the other.
        let mut monitors = self.monitors();
        self.check_open()?;
        let before = self.config();
        let topology = &self.inner.topology;
        let old: Vec<Arc<Node>> = self.snapshot().nodes.iter().map(|view| Arc::clone(&view.node)).collect();
        // Also those that are still leaving: a node that was removed by mistake comes back with all that is known of it.
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

        // A monitor whose own settings changed is restarted from what is known.
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
