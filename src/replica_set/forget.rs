//! The operator's word: what was seen before decides nothing any more.

use std::sync::Arc;

use tokio::time::Instant;

use super::ReplicaSet;
use crate::topology::Topology;

impl ReplicaSet {
    /// Forgets what the set remembers of its nodes, and judges them again by fresh probes.
    ///
    /// It is an operator's decision, for what the set must not decide by itself:
    ///
    /// * The system identifier is another one for good: after `pg_upgrade`, or a switch to another cluster.
    /// * The highest timeline is gone, and no node that showed it is left to prove that.
    /// * Two primaries wrote on one timeline, and the one that is to go is out of sight for good.
    ///
    /// What protected against an old primary is forgotten as well, so decide first which server is the primary, and
    /// make sure that no other one can be reached. In-doubt transactions from before resolve to
    /// [`Unknown`](crate::CommitOutcome::Unknown). Writes that are in flight are cut off, and new ones wait until a
    /// primary is found.
    ///
    /// Returns the topology once every node was probed again, or after `timeouts.connect`.
    ///
    /// # Cancel safety
    ///
    /// The memory is gone before the first `await`; dropped later, only the waiting ends.
    ///
    /// ```no_run
    /// # async fn example(set: pointsman::ReplicaSet) {
    /// // After pg_upgrade of all nodes:
    /// let topology = set.forget_history().await;
    /// println!("{:?}", topology.primary);
    /// # }
    /// ```
    pub async fn forget_history(&self) -> Arc<Topology> {
        if self.check_open().is_ok() {
            tracing::warn!(
                "the history is forgotten: system identifier, timelines, conflicts and recoveries"
            );
            self.inner.topology.forget(Instant::now());
            self.settled().await;
        }
        self.topology()
    }
}
