//! Discards the recorded history of the nodes, on an operator's decision.

use std::sync::Arc;

use tokio::time::Instant;

use super::ReplicaSet;
use crate::topology::Topology;

impl ReplicaSet {
    /// Forgets the history of the nodes, and resolves their roles by fresh probes.
    ///
    /// Only an operator can decide this, because the set cannot know it:
    ///
    /// * The system identifier changed for good: after `pg_upgrade`, or a switch to another cluster. If every node shows
    ///   the new one, the set adopts it by itself after half a minute.
    /// * The highest timeline is gone, and no node that showed it is left to prove that.
    /// * Two primaries wrote on one timeline, and the one to be removed is unreachable for good.
    ///
    /// The protection against an old primary is discarded as well. So decide first which server is the primary, and
    /// make sure that no other one can be reached. In-doubt transactions from before resolve to
    /// [`Unknown`](crate::CommitOutcome::Unknown). Writes that are in flight are cut off, and new ones wait until a
    /// primary is found.
    ///
    /// Returns the topology once every node was probed again, or after `timeouts.connect`.
    ///
    /// # Cancel safety
    ///
    /// The history is discarded before the first `await`; a future that is dropped later only stops waiting.
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
            self.wait_until_probed().await;
        }
        self.topology()
    }
}
