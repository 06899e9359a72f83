//! Checks out a connection for a read, and turns to the next node if one fails.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::await_position::await_position;
use super::read_plan::{Ask, ReadPlan, Shortage, Step, Unserved};
use super::{ReplicaSet, failures};
use crate::conn::Conn;
use crate::error::{CausalError, CheckoutError, ConnectError, NodeFailure};
use crate::options::ReadOptions;
use crate::pool::{Lease, PoolError, Queueing};
use crate::token::CausalToken;
use crate::topology::routing::Candidate;
use crate::topology::{Known, NodeFilter, NodeRole, NodeView, Requirement, Role, Snapshot, Tier};
use crate::{IntentKind, Read};

/// The way in which a replica proves that it has reached a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// By an answer before the connection is handed out, which takes a round trip.
    Before,
    /// By an answer in the flight of the first request, which the caller must check.
    InFlight,
}

/// A snapshot, and what the read requires by it.
struct Round {
    snapshot: Arc<Snapshot>,
    required: Option<Requirement>,
}

impl Round {
    /// Returns the required position if no node had written it when last probed.
    fn refuted(&self, since: Instant) -> Option<Requirement> {
        self.required.filter(|required| {
            required.known != Known::Written && self.snapshot.was_observed_since(since, required.known)
        })
    }
}

/// Leaves out the replicas that are always late, if another node may serve.
///
/// Every read would otherwise ask and await a replica whose replay stands still, or is delayed.
fn leave_out_late_replicas(candidates: &mut Vec<Candidate>, snapshot: &Snapshot, now: Instant) {
    let is_behind = |candidate: &Candidate| candidate.rank.tier == Tier::Behind;
    if !candidates.iter().all(is_behind) {
        candidates.retain(|candidate| {
            let stats = snapshot.nodes[candidate.node].node.stats();
            !is_behind(candidate) || !stats.is_wait_in_vain(now)
        });
    }
}

/// Lets a replica prove that it has reached a position.
async fn prove(
    mut conn: Conn<Read>,
    required: Requirement,
    proof: Proof,
    deadline: Instant,
) -> Result<Conn<Read>, Unserved> {
    if proof == Proof::InFlight {
        conn.prove_in_flight(required.position);
        return Ok(conn);
    }
    match timeout_at(deadline, conn.prove_position(required.position)).await {
        Ok(true) => Ok(conn),
        Ok(false) | Err(_) => Err(Unserved::Behind),
    }
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
        self.read_from(NodeFilter::All, &ReadOptions::new(), Proof::Before, deadline).await
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

    /// Checks out a connection to read, from a node that has what a token covers.
    ///
    /// Short for [`read_with`](Self::read_with) and [`ReadOptions::after`], which documents which node serves.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), and [`CheckoutError::Causal`].
    ///
    /// # Cancel safety
    ///
    /// As [`read`](Self::read).
    ///
    /// ```no_run
    /// # use pointsman::{CausalToken, CheckoutError, ReplicaSet};
    /// # async fn example(set: ReplicaSet, token: CausalToken) -> Result<(), CheckoutError> {
    /// let conn = set.read_after(&token).await?;
    /// println!("served by {} ({})", conn.node(), conn.role());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn read_after(&self, token: &CausalToken) -> Result<Conn<Read>, CheckoutError> {
        self.read_with(&ReadOptions::new().after(token)).await
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
            self.read_from(NodeFilter::All, &options, Proof::Before, Instant::now() + limit).await
        }
    }

    /// As [`read_with`](Self::read_with), from some of the nodes.
    pub(super) async fn read_from(
        &self,
        nodes: NodeFilter<'_>,
        options: &ReadOptions,
        proof: Proof,
        deadline: Instant,
    ) -> Result<Conn<Read>, CheckoutError> {
        // Pinned here because it is large: moving it would cost more than the rest of a checkout.
        self.while_open(pin!(self.find_reader(nodes, options, proof, deadline))).await
    }

    async fn find_reader(
        &self,
        nodes: NodeFilter<'_>,
        options: &ReadOptions,
        proof: Proof,
        deadline: Instant,
    ) -> Result<Conn<Read>, CheckoutError> {
        let began = Instant::now();
        let mut plan = ReadPlan::new(fastrand::Rng::new());
        let mut changes = None;
        let mut was_behind = false;
        let mut round = self.begin_round(&mut plan, nodes, options, began)?;
        loop {
            match plan.next() {
                Step::Ask(ask) => match self.ask(&round, ask, proof, deadline).await {
                    Ok(mut conn) => {
                        if was_behind {
                            conn.set_causal_wait(began.elapsed());
                        }
                        if let Some(log) = &options.log.0 {
                            log.begin_in(round.snapshot.system_identifier);
                            conn.track(log, round.snapshot.ancestry.timeline());
                        }
                        return Ok(conn);
                    }
                    Err(unserved) => {
                        was_behind |= matches!(unserved, Unserved::Behind);
                        plan.on(ask, unserved);
                    }
                },
                Step::AwaitPosition => {
                    was_behind = true;
                    if self.await_position(&plan, &round, options, deadline).await {
                        round = self.begin_round(&mut plan, nodes, options, Instant::now())?;
                    } else {
                        plan.on_waited();
                    }
                }
                Step::StartOver => {
                    yield_now().await;
                    round = self.begin_round(&mut plan, nodes, options, Instant::now())?;
                }
                Step::Pause(pause, shortage) => {
                    if let Some(required) = round.refuted(began) {
                        return Err(CausalError::from(required).into());
                    }
                    // Subscribe only now, so that a checkout that succeeds at once does not pay for it.
                    let changes = changes.get_or_insert_with(|| self.watch());
                    let until = Instant::now() + pause;
                    if until >= deadline {
                        sleep_until(deadline).await;
                        return Err(self.shortage(&round, shortage, plan.failures(), began.elapsed()));
                    }
                    let _ = timeout_at(until, changes.changed()).await;
                    round = self.begin_round(&mut plan, nodes, options, Instant::now())?;
                }
            }
        }
    }

    /// Begins a round with the present topology.
    fn begin_round(
        &self,
        plan: &mut ReadPlan,
        nodes: NodeFilter<'_>,
        options: &ReadOptions,
        now: Instant,
    ) -> Result<Round, CheckoutError> {
        self.check_open()?;
        let snapshot = self.snapshot();
        // Data read may be old anyway, so the read uses the last known topology while monitors are restarted.
        let _ = self.is_up_to_date(&snapshot, now);
        let token = options.after.as_ref().filter(|_| !self.ignores_tokens());
        let required = token.map(|token| snapshot.requirement(token)).transpose()?;
        let position = required.map(|required| required.position);
        let mut candidates = snapshot.candidates(options, nodes, position, now);
        if options.always_asks() {
            let is_replica =
                |candidate: &&mut Candidate| snapshot.nodes[candidate.node].role == NodeRole::Replica;
            for candidate in candidates.iter_mut().filter(is_replica) {
                candidate.rank.tier = candidate.rank.tier.max(Tier::Behind);
            }
        }
        if required.is_some() && options.causal_wait.is_none() {
            leave_out_late_replicas(&mut candidates, &snapshot, now);
        }
        if let Some(required) = required.filter(|required| required.known != Known::Written) {
            // A made-up token must not send its reads to the primary, and a new one may be ahead of the last probe.
            let is_askable = |node: usize| {
                required.known == Known::Ahead && snapshot.nodes[node].role == NodeRole::Replica
            };
            candidates.retain(|candidate| is_askable(candidate.node));
            snapshot.wake_monitors();
        }
        plan.begin_round(candidates);
        Ok(Round { snapshot, required })
    }

    /// Returns `true` if reads ignore tokens (`testkit::ignore_causal_tokens`).
    #[cfg(feature = "testkit")]
    fn ignores_tokens(&self) -> bool {
        self.inner.ignores_tokens.load(Ordering::Relaxed)
    }

    #[cfg(not(feature = "testkit"))]
    #[expect(clippy::unused_self, reason = "the test kit's variant reads the set")]
    const fn ignores_tokens(&self) -> bool {
        false
    }

    /// Lets all reads ignore causal tokens from now on.
    #[cfg(feature = "testkit")]
    pub(crate) fn ignore_tokens(&self) {
        self.inner.ignores_tokens.store(true, Ordering::Relaxed);
    }

    /// Waits a little until a node that is behind has reached the position.
    ///
    /// Returns `false` if none has.
    async fn await_position(
        &self,
        plan: &ReadPlan,
        round: &Round,
        options: &ReadOptions,
        deadline: Instant,
    ) -> bool {
        let Some(required) = round.required else { return false };
        let wait = options.causal_wait.unwrap_or_else(|| self.config().reads().causal_wait);
        let nodes: Vec<_> =
            plan.behind().iter().map(|node| Arc::clone(&round.snapshot.nodes[*node].node)).collect();
        await_position(&nodes, required.position, deadline.min(Instant::now() + wait)).await
    }

    /// Returns the error of a read that no node served before its deadline.
    fn shortage(
        &self,
        round: &Round,
        shortage: Shortage,
        tried: &[NodeFailure],
        waited: Duration,
    ) -> CheckoutError {
        match shortage {
            Shortage::Exhausted { node } => CheckoutError::Exhausted {
                node: round.snapshot.nodes[node].node.name().to_owned(),
                intent: IntentKind::Read,
                waited,
                max_size: self.config().pool().max_size,
            },
            Shortage::NoPermit { limit } => CheckoutError::FallbackExhausted { limit },
            Shortage::Behind => {
                let position = round.required.map(|required| required.position).unwrap_or_default();
                CausalError::NotCaughtUp { position, waited }.into()
            }
            Shortage::NoNode => {
                let failures = failures(&self.snapshot(), tried);
                CheckoutError::NoNode { intent: IntentKind::Read, waited, failures }
            }
        }
    }

    /// Asks one node for a connection.
    async fn ask(
        &self,
        round: &Round,
        ask: Ask,
        proof: Proof,
        deadline: Instant,
    ) -> Result<Conn<Read>, Unserved> {
        let snapshot = &round.snapshot;
        let deadline = ask.timeout.map_or(deadline, |timeout| deadline.min(Instant::now() + timeout));
        let view = &snapshot.nodes[ask.node];
        let permit =
            if ask.needs_permit() { Some(self.permit(snapshot, view, ask, deadline).await?) } else { None };
        let node = &view.node;
        let failed = |reason: String, error: Option<Arc<ConnectError>>| {
            let failure = NodeFailure { node: node.name().to_owned(), reason, error };
            let (node, reason) = (&failure.node, &failure.reason);
            tracing::debug!(node, reason, "a read goes on to the next node");
            Unserved::Failed(failure)
        };
        let _in_flight = node.stats().enter();
        match node.read_pool().get(deadline, Queueing::Join).await {
            Ok(lease) => {
                let lease = permit.into_iter().fold(lease, Lease::with_permit);
                let role = if view.role == NodeRole::Replica { Role::Replica } else { Role::Primary };
                let conn = Conn::new(lease, Arc::clone(node), role);
                match round.required.filter(|_| ask.tier == Tier::Behind) {
                    Some(required) => prove(conn, required, proof, deadline).await,
                    None => Ok(conn),
                }
            }
            Err(PoolError::Exhausted) => Err(Unserved::Exhausted),
            Err(PoolError::Connecting) => {
                node.stats().wake_monitor();
                Err(failed("a connection to it was not there in time".to_owned(), None))
            }
            Err(PoolError::Retired) => Err(Unserved::Retired),
            Err(PoolError::Closed) => Err(failed("it was lost while a connection was made".to_owned(), None)),
            Err(PoolError::Connect(error)) => Err(failed(error.to_string(), Some(error))),
        }
    }

    /// Takes a permit for a read on the primary.
    async fn permit(
        &self,
        snapshot: &Snapshot,
        view: &NodeView,
        ask: Ask,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, Unserved> {
        // A primary that is just up again is in slow start here as well. The replicas will be up in a moment, and each
        // program would otherwise leave a pool of sessions on the primary.
        let in_flight = view.node.stats().in_flight.load(Ordering::Relaxed);
        if let Some(limit) = snapshot.read_limit(view, Instant::now())
            && in_flight >= limit
        {
            return Err(Unserved::NoPermit { limit });
        }
        let live = self.live();
        let permits = &live.limits.fallback;
        let mut permit = permits.try_acquire();
        // Wait only if no other node can be asked.
        if permit.is_none() && ask.is_last {
            permit = timeout_at(deadline, permits.acquire()).await.ok().flatten();
        }
        permit.ok_or_else(|| Unserved::NoPermit { limit: live.config.reads().max_fallback })
    }
}
