//! Nodes that come and go while traffic runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::{Live, ReplicaSet, prepare, watch_over};
use crate::config::Config;
use crate::error::Error;
use crate::node::Node;

/// What a change of the configuration did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Reconfigured {
    /// Names of the nodes that are new, or were made anew because their settings changed.
    pub added: Vec<String>,
    /// Names of the nodes that are gone; they get no more work, and finish what they have.
    pub removed: Vec<String>,
    draining: Vec<Arc<Node>>,
}

impl Reconfigured {
    /// How many connections to removed nodes are still in use.
    pub fn in_use(&self) -> u32 {
        self.draining.iter().map(|node| node.leased()).sum()
    }

    /// Waits until the removed nodes have finished what they had: then their servers may be stopped.
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
    /// Nodes whose settings are the same keep their connections and what is known of them. New ones are looked
    /// at before this returns, within `timeouts.connect`. Removed ones get no more work; what runs on them
    /// finishes. The set remembers its identity and its highest timeline, so a reconfiguration
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
        tracing::info!(added = ?change.added, removed = ?change.removed, "the configuration changed");
        self.settled().await;
        Ok(change)
    }

    fn replace(&self, config: &Arc<Config>) -> Result<Reconfigured, Error> {
        // Held throughout, so that two changes at once come one after the other.
        let mut monitors = self.monitors();
        self.check_open()?;
        let before = self.config();
        let old: Vec<Arc<Node>> =
            self.snapshot().nodes.iter().map(|placed| Arc::clone(&placed.node)).collect();
        let same_settings = before.pool() == config.pool()
            && before.timeouts() == config.timeouts()
            && before.probe() == config.probe()
            && before.application_name() == config.application_name();
        let node = |node: &crate::config::NodeConfig| {
            let kept = old.iter().find(|old| same_settings && old.config() == node);
            kept.map_or_else(|| prepare(node, config), |kept| Ok(Arc::clone(kept)))
        };
        let nodes = config.nodes().iter().map(node).collect::<Result<Vec<_>, _>>()?;
        let not_in =
            |nodes: &[Arc<Node>], node: &Arc<Node>| !nodes.iter().any(|other| Arc::ptr_eq(other, node));
        let names = |nodes: &[Arc<Node>]| nodes.iter().map(|node| node.name().to_owned()).collect();
        let added: Vec<_> = nodes.iter().filter(|node| not_in(&old, node)).cloned().collect();
        let draining: Vec<_> = old.iter().filter(|node| not_in(&nodes, node)).cloned().collect();

        self.inner.board.replace(Arc::clone(config), nodes.clone());
        *monitors = watch_over(&nodes, &self.inner.board, config);
        let live = self.inner.live.swap(Arc::new(Live::new(Arc::clone(config))));
        // Whoever waits on a limit of before looks again, at the new one.
        live.fallback.close();
        Ok(Reconfigured { added: names(&added), removed: names(&draining), draining })
    }
}
