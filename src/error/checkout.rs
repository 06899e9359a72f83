//! The errors of a checkout.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{CausalError, ConnectError};
use crate::IntentKind;

/// The reason why [`read`] or [`write`] failed.
///
/// Nothing was sent to a server on behalf of the caller, so the call is safe to repeat.
///
/// [`read`]: crate::ReplicaSet::read
/// [`write`]: crate::ReplicaSet::write
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CheckoutError {
    /// No node was fit to serve within the deadline.
    #[error("no node could serve a {intent} within {waited:?}{}", Failures(.failures))]
    NoNode {
        /// The requested intent.
        intent: IntentKind,
        /// Time waited.
        waited: Duration,
        /// The error or the last known state of each node.
        failures: Vec<NodeFailure>,
    },
    /// There is no primary to write to, and none appeared in time.
    #[error("no primary was found within {waited:?} (`writes.failover_wait`, or the options of the call){}", Failures(.failures))]
    NoPrimary {
        /// Time waited.
        waited: Duration,
        /// The last known state of each node.
        failures: Vec<NodeFailure>,
    },
    /// Two nodes were out of recovery on the same timeline.
    ///
    /// Writing to either could lose data.
    ///
    /// The error persists until all but one are gone for good. A node that is only stopped still counts.
    #[error(
        "split brain: {} all took writes on timeline {timeline}; choose one and rebuild the others as standbys of it (one that \
         is only stopped still counts), remove them from the configuration, or call `forget_history`",
        .nodes.join(", ")
    )]
    SplitBrain {
        /// The nodes that claim to be the primary, by name.
        nodes: Vec<String>,
        /// The timeline that they claim.
        timeline: u32,
    },
    /// The primary is known and alive, but opens no session.
    ///
    /// Its connection slots are taken, or it rejects the login.
    #[error("the {intent} pool of {node} could open no session within {waited:?}: {error}")]
    CannotConnect {
        /// The node's name.
        node: String,
        /// The requested intent.
        intent: IntentKind,
        /// Time waited.
        waited: Duration,
        /// The error of the last attempt to connect.
        error: Arc<ConnectError>,
    },
    /// The nodes belong to different clusters, and none has the majority.
    #[error(
        "the nodes belong to different clusters, so nothing is written: system identifier of {}; remove the nodes that do not \
         belong to the set, or call `forget_history` after a change of the cluster (pg_upgrade, a restore elsewhere)",
        List(.nodes)
    )]
    IdentifierMismatch {
        /// The identifier that each node showed.
        nodes: Vec<ShownIdentifier>,
    },
    /// All connections of the pool were in use until the deadline; the node is alive.
    #[error(
        "all connections of the {intent} pool of {node} were in use for {waited:?}: \
         return them sooner, or raise `pool.max_size` ({max_size})"
    )]
    Exhausted {
        /// The node's name.
        node: String,
        /// The requested intent.
        intent: IntentKind,
        /// Time waited.
        waited: Duration,
        /// The limit of the pool.
        max_size: u32,
    },
    /// The limit of callers that wait for a primary is reached.
    #[error("{limit} callers already wait for a primary (`writes.max_waiters`)")]
    TooManyWaiters {
        /// The limit.
        limit: u32,
    },
    /// The limit of reads that fall back to the primary is reached.
    #[error(
        "no replica is fit, and {limit} reads already fall back to the primary \
         (`reads.max_fallback`; fewer within `reads.slow_start` of its return)"
    )]
    FallbackExhausted {
        /// The limit.
        limit: u32,
    },
    /// The last probes are too old, so an old primary could have been replaced unseen.
    ///
    /// The set's monitors have ended with the tokio runtime on which it was connected, or no thread drives that
    /// runtime. They are restarted on the caller's runtime, and this is the error if they had no result in time.
    #[error(
        "the nodes were not probed within {waited:?}, so it is not known which one is the primary: keep the tokio runtime \
         running on which the set was connected"
    )]
    Stale {
        /// Time waited.
        waited: Duration,
    },
    /// No node could satisfy the causal token of the call.
    #[error(transparent)]
    Causal(#[from] CausalError),
    /// The set was closed.
    #[error("the replica set is closed")]
    Closed,
}

/// The reason why one node could not serve.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeFailure {
    /// The node's name.
    pub node: String,
    /// The reason why the node was not used.
    pub reason: String,
    /// The error of the last attempt to connect, if there was one.
    pub error: Option<Arc<ConnectError>>,
}

impl fmt::Display for NodeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.node, self.reason)
    }
}

struct List<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, item) in self.0.iter().enumerate() {
            write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

struct Failures<'a>(&'a [NodeFailure]);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, failure) in self.0.iter().enumerate() {
            write!(f, "{} {failure}", if i == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

/// The cluster to which a node belongs by its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ShownIdentifier {
    /// The node's name.
    pub node: String,
    /// The system identifier in decimal digits, too many for a JSON number.
    pub system_identifier: String,
}

impl fmt::Display for ShownIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} shows {}", self.node, self.system_identifier)
    }
}
