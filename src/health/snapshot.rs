//! The nodes as they stand at one moment, and which of them may serve a read.

use std::sync::Arc;

use tokio::time::Instant;

use super::recovery::Recovery;
use crate::config::{Fallback, ReadSettings};
use crate::error::ConnectError;
use crate::node::Node;
use crate::topology::select::{Candidate, Tier};
use crate::topology::{Loss, Standing, Topology};

/// The nodes as they stand at one moment, for the set's own use.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// What users see of it.
    pub(crate) topology: Arc<Topology>,
    /// The nodes, in the order of the topology.
    pub(crate) nodes: Vec<Placed>,
    /// The primary, if there is exactly one.
    pub(crate) primary: Option<usize>,
    pub(super) reads: ReadSettings,
}

/// A node and its place.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) node: Arc<Node>,
    pub(crate) standing: Standing,
    /// Whether it is a replica, well, and fresh enough.
    pub(super) fit: bool,
    /// Whether it may serve what no other node can serve better.
    pub(super) last_resort: bool,
    pub(super) near: bool,
    pub(super) recovery: Recovery,
    pub(super) loss: Option<Loss>,
}

impl Placed {
    /// The error with which its monitor could not connect, if that is why the node is not there.
    pub(crate) fn connect_error(&self) -> Option<&Arc<ConnectError>> {
        match &self.loss {
            Some(Loss::Connect(error)) => Some(error),
            _ => None,
        }
    }
}

impl Snapshot {
    /// Returns `true` if the monitors of all nodes keep what is known of them up to date.
    pub(crate) fn is_up_to_date(&self, now: Instant) -> bool {
        !self.nodes.iter().any(|placed| placed.node.vitals().watched.is_overdue(now))
    }

    /// How many reads at once a node that is just back may have for now; `None` sets no limit.
    pub(crate) fn allowance(&self, placed: &Placed, now: Instant) -> Option<u32> {
        placed.recovery.allowance(&self.reads, now)
    }

    /// The nodes that may serve a read now.
    pub(crate) fn candidates(&self, now: Instant) -> Vec<Candidate> {
        let fallback = self.fallback();
        let candidate = |(i, placed): (usize, &Placed)| {
            let vitals = placed.node.vitals();
            let load = vitals.in_flight.load(std::sync::atomic::Ordering::Relaxed);
            let ramping = || self.allowance(placed, now).is_some_and(|allowed| load >= allowed);
            let as_replica = || match placed.near {
                _ if placed.recovery.is_ejected(now) || ramping() => Tier::Recovering,
                true => Tier::Near,
                false => Tier::Fit,
            };
            let tier = match placed.standing {
                _ if placed.last_resort => Tier::Stale,
                Standing::Primary if fallback == Fallback::Always && vitals.is_doubtful(now) => {
                    Tier::Suspected
                }
                Standing::Primary if fallback == Fallback::Always => as_replica(),
                Standing::Primary if fallback == Fallback::WhenUnfit => Tier::Fallback,
                Standing::Replica if placed.fit && vitals.is_doubtful(now) => Tier::Suspected,
                Standing::Replica if placed.fit => as_replica(),
                _ => return None,
            };
            let (latency, weight) = (vitals.latency.average(), placed.node.config().weight());
            let overdue = vitals.overdue_answers();
            Some(Candidate { node: i, tier, load, overdue, latency, weight })
        };
        self.nodes.iter().enumerate().filter_map(candidate).collect()
    }

    /// The policy for reads on the primary; without any other node it is no fallback.
    fn fallback(&self) -> Fallback {
        if self.nodes.len() == 1 { Fallback::Always } else { self.reads.fallback }
    }
}
