//! Checks out a connection for a read, and turns to the next node if one fails.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{ReplicaSet, failures};
use crate::conn::Conn;
use crate::error::{CheckoutError, NodeFailure};
use crate::options::ReadOptions;
use crate::pool::{Lease, PoolError, Queueing};
use crate::topology::routing::take;
use crate::topology::{NodeFilter, NodeRole, NodeView, Rank, Role, Snapshot, Tier};
use crate::{IntentKind, Read};

/// Time for one node to provide a connection while there are other nodes to ask.
///
/// An idle connection is available at once, and a new one within some round trips. A node whose pool is exhausted is
/// not down, but another node may have an idle connection.
const PATIENCE: Duration = Duration::from_millis(100);

/// Longest pause before all nodes are tried again; a change of the topology ends it.
const PAUSE: Duration = Duration::from_millis(50);

/// Retry pause when all fallback permits are taken; they free up within milliseconds.
const PAUSE_FOR_PLACE: Duration = Duration::from_millis(10);

/// The answer of one node.
enum Attempt {
    Served(Conn<Read>),
    Failed(NodeFailure),
    /// All its connections are in use.
    Full,
    /// All permits for reads that fall back to the primary are taken.
    NoFallback {
        limit: u32,
    },
    /// Its settings were replaced, and so was its pool.
    Retired,
}

impl ReplicaSet {
    /// Checks out a connection to read, from a replica or otherwise from the primary.
    ///
    /// Two of the fit nodes are drawn, and the one with less load and lower latency serves. If it cannot, the next one
    /// is asked, until the deadline (`timeouts.checkout`). No round trip is made, unless a connection must be opened.
    /// `reads.fallback` and `reads.max_fallback` decide if and how many reads fall back to the primary. In a set of one
    /// node, this node serves all reads.
    ///
    /// # Errors
    ///
    /// [`CheckoutError`]; nothing was sent to a server.
    ///
    /// # Cancel safety
    ///
    /// A dropped future takes no connection.
    ///
    /// ```no_run
    /// # use pointsman::prelude::*;
    /// # async fn example(set: pointsman::ReplicaSet) -> Result<(), pointsman::CheckoutError> {
    /// let conn: Conn<Read> = set.read().await?;
    /// println!("served by {} ({})", conn.node(), conn.role());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn read(&self) -> Result<Conn<Read>, CheckoutError> {
        let deadline = Instant::now() + self.config().timeouts().checkout;
        self.read_from(NodeFilter::All, &ReadOptions::new(), deadline).await
    }

    /// Checks out a connection to read, from the primary first.
    ///
    /// Short for [`read_with`](Self::read_with) and [`ReadOptions::prefer_primary`], which documents when a replica
    /// serves instead.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    ///
    /// # Cancel safety
    ///
    /// As [`read`](Self::read).
    ///
    /// ```no_run
    /// # use pointsman::prelude::*;
    /// # async fn example(set: pointsman::ReplicaSet) -> Result<(), pointsman::CheckoutError> {
    /// let conn = set.read_prefer_primary().await?;
    /// println!("served by {} ({})", conn.node(), conn.role());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn read_prefer_primary(&self) -> Result<Conn<Read>, CheckoutError> {
        self.read_with(&ReadOptions::new().prefer_primary()).await
    }

    /// Checks out a connection to read, with options for this call.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    ///
    /// # Cancel safety
    ///
    /// As [`read`](Self::read).
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use pointsman::ReadOptions;
    /// # async fn example(set: pointsman::ReplicaSet) -> Result<(), pointsman::CheckoutError> {
    /// let conn = set.read_with(&ReadOptions::new().within(Duration::from_millis(200))).await?;
    /// # drop(conn);
    /// # Ok(())
    /// # }
    /// ```
    // The future keeps no reference to the options, so the caller can build them in the call, also inside `join!`.
    pub fn read_with<'set>(
        &'set self,
        options: &ReadOptions,
    ) -> impl Future<Output = Result<Conn<Read>, CheckoutError>> + Send + use<'set> {
        let options = options.clone();
        async move {
            let limit = options.within.unwrap_or_else(|| self.config().timeouts().checkout);
            self.read_from(NodeFilter::All, &options, Instant::now() + limit).await
        }
    }

    /// As [`read_with`](Self::read_with), from some of the nodes.
    pub(super) async fn read_from(
        &self,
        nodes: NodeFilter<'_>,
        options: &ReadOptions,
        deadline: Instant,
    ) -> Result<Conn<Read>, CheckoutError> {
        // Pinned here because it is large: moving it would cost more than the rest of a checkout.
        self.while_open(pin!(self.find_reader(nodes, options, deadline))).await
    }

    async fn find_reader(
        &self,
        nodes: NodeFilter<'_>,
        options: &ReadOptions,
        deadline: Instant,
    ) -> Result<Conn<Read>, CheckoutError> {
        let began = Instant::now();
        let mut now = began;
        let mut rng = fastrand::Rng::new();
        let mut changes = None;
        let mut tried: Vec<NodeFailure> = Vec::new();
        let mut busy = false;
        'nodes: loop {
            self.check_open()?;
            let snapshot = self.snapshot();
            // Data read may be old anyway, so the read uses the last known topology while monitors are restarted.
            let _ = self.is_up_to_date(&snapshot, now);
            let mut candidates = snapshot.candidates(options, nodes, now);
            // Once a replica was only busy, stay in its queue; do not retry the primary.
            let is_next = |rank: Rank, tiers: [Tier; 2]| !rank.last && tiers.contains(&rank.tier);
            if busy && candidates.iter().any(|next| is_next(next.rank, [Tier::Near, Tier::Fit])) {
                candidates.retain(|next| !is_next(next.rank, [Tier::Preferred, Tier::Fallback]));
            }
            let mut full = None;
            let mut no_fallback = None;
            while let Some(candidate) = take(&mut candidates, &mut rng) {
                let view = &snapshot.nodes[candidate.node];
                let is_last = candidates.is_empty();
                // A fallback permit may be free again at any moment, so do not wait long for a node that may hang.
                let patience = match is_last {
                    true if no_fallback.is_none() => deadline,
                    true => deadline.min(Instant::now() + PAUSE_FOR_PLACE),
                    false => deadline.min(Instant::now() + PATIENCE),
                };
                match self.attempt(&snapshot, view, candidate.rank.tier, is_last, patience).await {
                    Attempt::Served(conn) => return Ok(conn),
                    Attempt::Failed(failure) => {
                        tracing::debug!(
                            node = failure.node,
                            reason = failure.reason,
                            "a read goes on to the next node"
                        );
                        tried.retain(|earlier| earlier.node != failure.node);
                        tried.push(failure);
                    }
                    // This node is asked again in its own tier, if no other node serves.
                    Attempt::Full | Attempt::NoFallback { .. } if candidate.rank.tier == Tier::Preferred => {}
                    Attempt::Full => {
                        // A busy replica is fit, so the primary must not take its load.
                        candidates.retain(|next| !is_next(next.rank, [Tier::Fallback; 2]));
                        full = Some(view.node.name().to_owned());
                    }
                    Attempt::NoFallback { limit } => no_fallback = Some(limit),
                    // The node is still in the set, with a new pool in a newer snapshot.
                    Attempt::Retired => {
                        yield_now().await;
                        continue 'nodes;
                    }
                }
            }
            busy = full.is_some();
            // Subscribe only now, so that a checkout that succeeds at once does not pay for it.
            let changes = changes.get_or_insert_with(|| self.watch());
            let pause =
                deadline.min(Instant::now() + if no_fallback.is_some() { PAUSE_FOR_PLACE } else { PAUSE });
            if pause >= deadline {
                sleep_until(deadline).await;
                let waited = began.elapsed();
                return Err(match (full, no_fallback) {
                    (Some(node), _) => {
                        let max_size = self.config().pool().max_size;
                        CheckoutError::Exhausted { node, intent: IntentKind::Read, waited, max_size }
                    }
                    (None, Some(limit)) => CheckoutError::FallbackExhausted { limit },
                    (None, None) => {
                        let failures = failures(&self.snapshot(), &tried);
                        CheckoutError::NoNode { intent: IntentKind::Read, waited, failures }
                    }
                });
            }
            let _ = timeout_at(pause, changes.changed()).await;
            now = Instant::now();
        }
    }

    async fn attempt(
        &self,
        snapshot: &Snapshot,
        view: &NodeView,
        tier: Tier,
        is_last: bool,
        deadline: Instant,
    ) -> Attempt {
        let permit = if matches!(tier, Tier::Preferred | Tier::Fallback) {
            // A primary that is just up again is ramped up here as well. The replicas will be up in a moment, and each
            // program would otherwise leave a pool of sessions on the primary.
            let in_flight = view.node.stats().in_flight.load(Ordering::Relaxed);
            if let Some(limit) = snapshot.read_limit(view, Instant::now())
                && in_flight >= limit
            {
                return Attempt::NoFallback { limit };
            }
            let live = self.live();
            let places = &live.limits.fallback;
            let mut permit = places.try_acquire();
            // Wait only if no other node can be asked.
            if permit.is_none() && is_last {
                permit = timeout_at(deadline, places.acquire()).await.ok().flatten();
            }
            let Some(permit) = permit else {
                return Attempt::NoFallback { limit: live.config.reads().max_fallback };
            };
            Some(permit)
        } else {
            None
        };
        let node = &view.node;
        let failed = |reason: &str| NodeFailure {
            node: node.name().to_owned(),
            reason: reason.to_owned(),
            error: None,
        };
        let _in_flight = node.stats().enter();
        match node.read_pool().get(deadline, Queueing::Join).await {
            Ok(lease) => {
                let lease = permit.into_iter().fold(lease, Lease::with_permit);
                let role = if view.role == NodeRole::Replica { Role::Replica } else { Role::Primary };
                Attempt::Served(Conn::new(lease, Arc::clone(node), role))
            }
            Err(PoolError::Exhausted) => Attempt::Full,
            Err(PoolError::Connecting) => {
                node.stats().wake_monitor();
                Attempt::Failed(failed("a connection to it was not there in time"))
            }
            Err(PoolError::Retired) => Attempt::Retired,
            Err(PoolError::Severed) => Attempt::Failed(failed("it was lost while a connection was made")),
            Err(PoolError::Connect(error)) => {
                Attempt::Failed(NodeFailure { error: Some(Arc::clone(&error)), ..failed(&error.to_string()) })
            }
        }
    }
}
