//! Runs a read on another node again if its node fails it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::hedge;
use super::read::Proof;
use super::repeat::{Decision, Failure, Reason, Repeats};
use super::run::{Run, answered_within, is_alive, node_of, run_on};
use super::{Live, ReplicaSet};
use crate::Read;
use crate::conn::{AsyncFunc, Conn};
use crate::error::CheckoutError;
use crate::options::ReadOptions;
use crate::topology::Health;
use crate::topology::{Node, NodeFilter, NodeId};

/// The parameters that all tries of one call share.
#[derive(Clone, Copy)]
struct Call<'c> {
    options: &'c ReadOptions,
    /// The deadline of the call's waits for connections, if its options set one.
    limit: Option<Instant>,
    /// The beginning of the try whose node had not reached the position.
    behind_since: Option<Instant>,
    live: &'c Live,
}

impl Call<'_> {
    /// Returns the deadline of a checkout that begins now.
    fn deadline(&self) -> Instant {
        self.limit.unwrap_or_else(|| Instant::now() + self.live.config.timeouts().checkout)
    }

    /// Returns `true` if a run that begins after a pause would begin too late.
    fn is_too_late_after(&self, pause: Duration) -> bool {
        self.limit.is_some_and(|limit| Instant::now() + pause >= limit)
    }
}

/// The end of one try, including a hedge if there was one.
enum Try<R, E> {
    /// The function returned, with a value or its own error.
    Answered(Result<R, E>),
    /// The node caused the error, and the failure was recorded.
    Failed(E),
    /// The session had ended before the function got it, which was recorded.
    Stale,
    /// The node had not reached the token's position, so the result is void.
    Behind,
    /// No connection was available.
    NoConnection(CheckoutError),
}

/// Time to wait for the nodes on which a suspect's sessions ended.
///
/// Only these nodes may run it again.
const SAME_NODES: Duration = Duration::from_millis(500);

/// Time for the monitors to find out if a node survived the end of a session.
const SURVIVAL_CHECK: Duration = Duration::from_millis(250);

/// Time before a hedge is tried again; by then there may be budget, or a node.
const NEXT_HEDGE: Duration = Duration::from_millis(50);

impl ReplicaSet {
    /// Runs a function that only reads, on another node again if its node fails it.
    ///
    /// A read is safe to repeat, so the function runs again if
    ///
    /// * the session ends for any reason: the first time at once, on another node;
    /// * the node hangs: as soon as its monitor marks it down;
    /// * the server ends the statement because of a conflict, such as with replay (40001, 40P01): after a pause.
    ///
    /// The time that earlier runs took does not matter: `timeouts.checkout` limits the wait for a connection, for each
    /// run. `reads.retries` limits the repeats of one read. All reads together repeat at most one in five, and 200 at
    /// once, beyond their first move away from a node that went down.
    ///
    /// A statement that lost two sessions while it ran is taken for the cause. No further node gets it, least of all
    /// the primary. If the server ended these sessions by command (57P01) and goes on, one of these replicas gets it
    /// once more. The call returns the error of the last run, and logs a warning.
    ///
    /// If an answer is pending for far longer than the node's recent 99th percentile, the read also runs on a
    /// second node. The first answer wins, and `reads.hedge_budget` bounds the proportion. A read that may have ended
    /// its session is not hedged. The time that the function itself takes does not count.
    ///
    /// The function may therefore run more than once, and twice at the same time. Its effects besides reading should
    /// allow for that. It is cloned for each run.
    ///
    /// # Errors
    ///
    /// The function's error, or [`CheckoutError`], converted into `E`, if no node could serve.
    ///
    /// # Cancel safety
    ///
    /// A dropped future returns its connections, and statements that run are cancelled at the server.
    ///
    /// ```no_run
    /// use pointsman::prelude::*;
    /// use pointsman::{Error, ReplicaSet};
    ///
    /// diesel::table! { users (id) { id -> Integer, name -> Text, } }
    ///
    /// async fn name_of(set: &ReplicaSet, id: i32) -> Result<String, Error> {
    ///     set.run_read(async |conn| {
    ///         Ok(users::table.find(id).select(users::name).first(conn).await?)
    ///     })
    ///     .await
    /// }
    /// ```
    pub fn run_read<'a, 'set, R, E, F>(
        &'set self,
        function: F,
    ) -> impl Future<Output = Result<R, E>> + Send + 'set
    where
        for<'r> F: AsyncFnOnce(&'r mut Conn<Read>) -> Result<R, E>
            + AsyncFunc<&'r mut Conn<Read>, Result<R, E>, Fut: Send>
            + Clone
            + Send
            + 'a,
        E: From<CheckoutError> + Send + 'a,
        R: Send + 'a,
        'a: 'set,
    {
        self.run_read_with(&ReadOptions::new(), function)
    }

    /// Runs a function that only reads, with options for this call.
    ///
    /// It does the same as [`run_read`](Self::run_read).
    ///
    /// # Errors
    ///
    /// As [`run_read`](Self::run_read).
    ///
    /// # Cancel safety
    ///
    /// As [`run_read`](Self::run_read).
    ///
    /// ```no_run
    /// use pointsman::prelude::*;
    /// use pointsman::{Error, ReadOptions, ReplicaSet};
    ///
    /// diesel::table! { users (id) { id -> Integer, name -> Text, } }
    ///
    /// async fn after_login(set: &ReplicaSet, id: i32) -> Result<String, Error> {
    ///     set.run_read_with(&ReadOptions::new().prefer_primary(), async |conn| {
    ///         Ok(users::table.find(id).select(users::name).first(conn).await?)
    ///     })
    ///     .await
    /// }
    /// ```
    // The future keeps no reference to the options, so the caller can build them in the call, also inside `join!`.
    pub fn run_read_with<'a, 'set, R, E, F>(
        &'set self,
        options: &ReadOptions,
        function: F,
    ) -> impl Future<Output = Result<R, E>> + Send + 'set + use<'a, 'set, R, E, F>
    where
        for<'r> F: AsyncFnOnce(&'r mut Conn<Read>) -> Result<R, E>
            + AsyncFunc<&'r mut Conn<Read>, Result<R, E>, Fut: Send>
            + Clone
            + Send
            + 'a,
        E: From<CheckoutError> + Send + 'a,
        R: Send + 'a,
        'a: 'set,
    {
        let options = options.clone();
        async move {
            let live = self.live();
            live.limits.hedges.deposit();
            live.limits.repeats.deposit();
            let mut repeats = Repeats::new(live.config.reads().retries);
            let limit = options.within.map(|limit| Instant::now() + limit);
            let mut call = Call { options: &options, limit, behind_since: None, live: &live };
            let mut confined = false;
            let mut proof = Proof::InFlight;
            let mut last = None;
            loop {
                let began = Instant::now();
                match self.try_hedged(function.clone(), &call, &mut repeats, proof, confined).await {
                    Try::Answered(outcome) => return outcome,
                    // The node's error explains more than the lack of another node.
                    Try::NoConnection(error) => return Err(last.unwrap_or_else(|| error.into())),
                    Try::Failed(error) => last = Some(error),
                    Try::Stale => {}
                    Try::Behind => {
                        proof = Proof::Before;
                        call.behind_since.get_or_insert(began);
                        continue;
                    }
                }
                self.acquit(&mut repeats).await;
                let decision = match repeats.decide(&live.limits.repeats) {
                    Decision::Again(pause) | Decision::OnTheSame(pause) if call.is_too_late_after(pause) => {
                        Decision::GiveUp(Reason::Deadline)
                    }
                    decision => decision,
                };
                let (pause, on_the_same) = match decision {
                    Decision::Again(pause) => (pause, false),
                    Decision::OnTheSame(pause) => (pause, true),
                    Decision::GiveUp(reason) => {
                        self.log_given_up(&repeats, reason);
                        return Err(last.expect("a read that is given up has failed"));
                    }
                };
                confined = on_the_same;
                tracing::debug!(?pause, "a read is run again on another node");
                if !pause.is_zero() {
                    sleep(pause).await;
                }
            }
        }
    }

    /// Runs one try, and a second one beside it if the first is unusually slow.
    async fn try_hedged<'a, R, E, F>(
        &self,
        function: F,
        call: &Call<'_>,
        repeats: &mut Repeats,
        proof: Proof,
        confined: bool,
    ) -> Try<R, E>
    where
        for<'r> F: AsyncFnOnce(&'r mut Conn<Read>) -> Result<R, E>
            + AsyncFunc<&'r mut Conn<Read>, Result<R, E>, Fut: Send>
            + Clone
            + Send
            + 'a,
        E: From<CheckoutError> + Send + 'a,
        R: Send + 'a,
    {
        let Call { options, live, .. } = *call;
        let deadline = call.deadline();
        let deadline = if confined { deadline.min(Instant::now() + SAME_NODES) } else { deadline };
        let nodes = match repeats.failed_on() {
            [] => NodeFilter::All,
            nodes if confined => NodeFilter::OnlyReplicas(nodes),
            nodes => NodeFilter::Avoid(nodes),
        };
        let mut conn = match self.read_from(nodes, options, proof, deadline).await {
            Ok(conn) => conn,
            Err(error) => return Try::NoConnection(error),
        };
        if let Some(since) = call.behind_since {
            conn.set_causal_wait(since.elapsed());
        }
        let node = node_of(&conn);
        // A session that had already died unnoticed must not count against the read.
        if repeats.is_blamed() && !is_alive(&conn, live.config.probe().timeout).await {
            repeats.note(node.id(), Failure::Lost);
            return Try::Stale;
        }
        let wire = Arc::clone(conn.wire());
        let hedge_delay = hedge::delay(live.config.reads(), node.read_times().p99());
        let mut first = pin!(run_on(conn, function.clone()));
        if let Some(outcome) = answered_within(first.as_mut(), &wire, hedge_delay).await {
            return note(repeats, outcome);
        }
        // The node is slow or down, and its monitor finds out. Until then the node ranks lower in its tier.
        let _overdue = node.stats().overdue();
        node.stats().wake_monitor_for_slow_answer();
        // A read that may have ended a session must not run on two further nodes at once.
        while repeats.is_blamed()
            || call.is_too_late_after(Duration::ZERO)
            || !self.has_other_than(&node, options)
            || !live.limits.hedges.withdraw()
        {
            if let Ok(outcome) = timeout(hedge_delay.max(NEXT_HEDGE), first.as_mut()).await {
                return note(repeats, outcome);
            }
        }
        tracing::debug!(node = node.name(), ?hedge_delay, "a slow read is tried on a second node as well");
        let avoided = [node.id()];
        // No caller asked for a hedge, so it must not take the primary's permits.
        let options = ReadOptions { prefer_primary: false, ..options.clone() };
        let second = async {
            match self.read_from(NodeFilter::Except(&avoided), &options, Proof::Before, call.deadline()).await
            {
                Ok(conn) => Some(run_on(conn, function).await),
                Err(_) => None,
            }
        };
        let mut second = pin!(second);
        let (failed, other) = tokio::select! {
            biased;
            outcome = &mut first => match outcome {
                Run::Answered(outcome) => return Try::Answered(outcome),
                failed @ (Run::Failed(..) | Run::Behind) => (Some(failed), second.await),
            },
            outcome = &mut second => match outcome {
                Some(Run::Answered(outcome)) => return Try::Answered(outcome),
                failed => (failed, Some(first.await)),
            },
        };
        match (failed.map(|failed| note(repeats, failed)), other.map(|other| note(repeats, other))) {
            (_, Some(last)) | (Some(last), None) => last,
            (None, None) => unreachable!("the first run has ended"),
        }
    }

    /// Returns `true` if another node may serve a read.
    fn has_other_than(&self, node: &Arc<Node>, options: &ReadOptions) -> bool {
        let others = [node.id()];
        !self.snapshot().candidates(options, NodeFilter::Except(&others), None, Instant::now()).is_empty()
    }

    /// Clears a suspect if its nodes went down, because that ended the sessions.
    async fn acquit(&self, repeats: &mut Repeats) {
        if !repeats.is_suspect() {
            return;
        }
        let terminated: Vec<_> = repeats.terminated_on().collect();
        for node in terminated {
            if !self.survived(node).await {
                repeats.acquit(node);
            }
        }
    }

    /// Returns `true` if a node on which a session ended is up at its next probe.
    async fn survived(&self, id: NodeId) -> bool {
        let deadline = Instant::now() + SURVIVAL_CHECK;
        while Instant::now() < deadline {
            let snapshot = self.snapshot();
            let Some(i) = snapshot.nodes.iter().position(|view| view.node.id() == id) else {
                return false;
            };
            match snapshot.topology.nodes[i].health {
                Health::Up if !snapshot.nodes[i].node.stats().is_suspected() => return true,
                Health::Up | Health::Suspect => sleep(Duration::from_millis(5)).await,
                _ => return false,
            }
        }
        true
    }

    fn log_given_up(&self, repeats: &Repeats, reason: Reason) {
        let snapshot = self.snapshot();
        let name = |id: &NodeId| {
            let of = |view: &&crate::topology::NodeView| view.node.id() == *id;
            snapshot.nodes.iter().find(of).map(|view| view.node.name())
        };
        let nodes: Vec<_> = repeats.failed_on().iter().filter_map(name).collect();
        let reason = reason.as_str();
        if repeats.is_suspect() {
            tracing::warn!(?nodes, reason, "a read is suspected of ending its sessions, and is given up");
        } else {
            tracing::debug!(?nodes, reason, "a read is given up");
        }
    }
}

fn note<R, E>(repeats: &mut Repeats, run: Run<R, E>) -> Try<R, E> {
    match run {
        Run::Answered(outcome) => Try::Answered(outcome),
        Run::Behind => Try::Behind,
        Run::Failed(error, node, failure) => {
            repeats.note(node, failure);
            Try::Failed(error)
        }
    }
}
