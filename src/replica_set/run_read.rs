//! A read that survives its node.

use std::pin::pin;
use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::{ReplicaSet, hedge};
use crate::conn::{AsyncFunc, Conn};
use crate::error::CheckoutError;
use crate::node::Node;
use crate::{Read, SqlState};

/// How one try ended.
enum Try<R, E> {
    /// With an answer of the function.
    Answered(Result<R, E>),
    /// With an error that is its node's fault: another node may answer.
    NodeFailed(E, Arc<Node>),
    /// No connection could be had.
    NoConnection(CheckoutError),
}

impl ReplicaSet {
    /// Runs a function that only reads, on another node again if its node fails it.
    ///
    /// A read is safe to repeat, so this is: when the node is lost (also one that hangs, as soon as its
    /// monitor says so), or replay cancelled the statement, the function runs again on the
    /// next one. An answer that takes far longer than the node's recent 99th percentile is
    /// asked for on a second node as well, and the first one wins; `reads.hedge_budget` bounds how often.
    ///
    /// The function may therefore run more than once, and twice at the same time; what it does besides
    /// reading should bear that. It is cloned for each run.
    ///
    /// # Errors
    ///
    /// The function's error. [`CheckoutError`], made into `E`, where no node could serve.
    ///
    /// # Cancel safety
    ///
    /// A dropped future takes its connections back; statements that run are cancelled at the server.
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
    pub async fn run_read<'a, R, E, F>(&self, function: F) -> Result<R, E>
    where
        for<'r> F: AsyncFnOnce(&'r mut Conn<Read>) -> Result<R, E>
            + AsyncFunc<&'r mut Conn<Read>, Result<R, E>, Fut: Send>
            + Clone
            + Send
            + 'a,
        E: From<CheckoutError> + Send + 'a,
        R: Send + 'a,
    {
        self.live().hedges.deposit();
        let deadline = Instant::now() + self.config().timeouts().checkout;
        let mut failed: Option<(E, Arc<Node>)> = None;
        loop {
            let avoided = failed.as_ref().map(|(_, node)| Arc::clone(node));
            match self.try_hedged(function.clone(), avoided.as_deref(), deadline).await {
                Try::Answered(outcome) => return outcome,
                // What the node said tells more than that there was no other one.
                Try::NoConnection(error) => {
                    return Err(failed.map_or_else(|| error.into(), |(error, _)| error));
                }
                Try::NodeFailed(error, _) if Instant::now() >= deadline => return Err(error),
                Try::NodeFailed(error, node) => {
                    tracing::debug!(node = node.name(), "a read is run again on another node");
                    failed = Some((error, node));
                }
            }
        }
    }

    /// One try, and a second one beside it if it takes far longer than usual.
    async fn try_hedged<'a, R, E, F>(
        &self,
        function: F,
        avoided: Option<&Node>,
        deadline: Instant,
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
        let conn = match self.read_avoiding(avoided.map(Node::name), deadline).await {
            Ok(conn) => conn,
            Err(error) => return Try::NoConnection(error),
        };
        let node = Arc::clone(conn.served_by());
        let patience = hedge::delay(self.config().reads(), node.read_times().p99());
        let mut first = pin!(try_on(conn, function.clone()));
        tokio::select! {
            biased;
            outcome = &mut first => return outcome,
            () = sleep(patience) => {}
        }
        // Slow, or gone: its monitor finds out. Until then other reads go elsewhere.
        node.vitals().suspect();
        if !self.has_other_than(&node) || !self.live().hedges.withdraw() {
            return first.await;
        }
        tracing::debug!(node = node.name(), ?patience, "a slow read is tried on a second node as well");
        let second = async {
            match self.read_avoiding(Some(node.name()), deadline).await {
                Ok(conn) => try_on(conn, function).await,
                Err(error) => Try::NoConnection(error),
            }
        };
        let mut second = pin!(second);
        tokio::select! {
            outcome = &mut first => match outcome {
                Try::Answered(_) => outcome,
                Try::NodeFailed(..) | Try::NoConnection(_) => second.await,
            },
            outcome = &mut second => match outcome {
                Try::Answered(_) => outcome,
                Try::NodeFailed(..) | Try::NoConnection(_) => first.await,
            },
        }
    }

    /// Whether anybody else may serve a read.
    fn has_other_than(&self, node: &Arc<Node>) -> bool {
        let snapshot = self.snapshot();
        snapshot
            .candidates(Instant::now())
            .iter()
            .any(|other| !Arc::ptr_eq(&snapshot.nodes[other.node].node, node))
    }
}

async fn try_on<'a, R, E, F>(mut conn: Conn<Read>, function: F) -> Try<R, E>
where
    for<'r> F: AsyncFnOnce(&'r mut Conn<Read>) -> Result<R, E>
        + AsyncFunc<&'r mut Conn<Read>, Result<R, E>, Fut: Send>
        + Send
        + 'a,
    E: Send + 'a,
    R: Send + 'a,
{
    let began = Instant::now();
    conn.forget_sqlstate();
    let outcome = function(&mut conn).await;
    let node = conn.served_by();
    // A server that shuts down says so before it closes the connection; replay on a standby cancels what is in its way.
    let nodes_fault = |code: SqlState| code.ends_session() || code.is_transient_conflict();
    match outcome {
        Err(error) if conn.is_lost() || conn.last_sqlstate().is_some_and(nodes_fault) => {
            Try::NodeFailed(error, Arc::clone(node))
        }
        outcome => {
            node.read_times().record(began.elapsed());
            Try::Answered(outcome)
        }
    }
}
