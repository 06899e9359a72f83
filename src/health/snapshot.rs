//! The nodes as they stand at one moment, and which of them may serve a read.

use std::sync::Arc;

use tokio::time::Instant;

use super::recovery::Recovery;
use crate::config::{Fallback, ReadSettings};
use crate::error::ConnectError;
use crate::node::Node;
use crate::options::ReadOptions;
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
    /// Whether it is a replica, and well.
    pub(super) well: bool,
    /// Whether it is fresh enough as well, by the configuration.
    pub(super) fit: bool,
    /// Whether it may serve what no other node can serve better, because there is no primary.
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

    /// Returns the nodes that may serve a read now.
    ///
    /// The primary is there twice if the read asks for it first: before all others, and in its own tier, in case it has no
    /// place for the read.
    pub(crate) fn candidates(&self, options: &ReadOptions, now: Instant) -> Vec<Candidate> {
        let fallback = self.fallback(options);
        let candidate = |(i, placed): (usize, &Placed)| {
            let vitals = placed.node.vitals();
            let load = vitals.in_flight.load(std::sync::atomic::Ordering::Relaxed);
            let ramping = || self.allowance(placed, now).is_some_and(|allowed| load >= allowed);
            let as_replica = || match self.is_near(placed, options) {
                _ if placed.recovery.is_ejected(now) || ramping() => Tier::Recovering,
                true => Tier::Near,
                false => Tier::Fit,
            };
            let tier = match placed.standing {
                Standing::Primary if fallback == Fallback::Always && vitals.is_doubtful(now) => {
                    Tier::Suspected
                }
                Standing::Primary if fallback == Fallback::Always => as_replica(),
                Standing::Primary if fallback == Fallback::WhenUnfit => Tier::Fallback,
                Standing::Replica if self.is_fit(i, options) && vitals.is_doubtful(now) => Tier::Suspected,
                Standing::Replica if self.is_fit(i, options) => as_replica(),
                _ if placed.last_resort => Tier::Stale,
                _ => return None,
            };
            let (latency, weight) = (vitals.latency.average(), placed.node.config().weight());
            let overdue = vitals.overdue_answers();
            Some(Candidate { node: i, tier, load, overdue, latency, weight })
        };
        let mut candidates: Vec<_> = self.nodes.iter().enumerate().filter_map(candidate).collect();
        if options.prefer_primary && fallback != Fallback::Never && self.nodes.len() > 1 {
            let is_sound = |candidate: &&Candidate| {
                let placed = &self.nodes[candidate.node];
                self.primary == Some(candidate.node)
                    && !placed.node.vitals().is_doubtful(now)
                    && !placed.recovery.is_ejected(now)
            };
            let primary = candidates.iter().find(is_sound).copied();
            candidates.extend(primary.map(|primary| Candidate { tier: Tier::Preferred, ..primary }));
        }
        candidates
    }

    /// Returns the policy for reads on the primary; without any other node it is no fallback.
    fn fallback(&self, options: &ReadOptions) -> Fallback {
        if self.nodes.len() == 1 { Fallback::Always } else { options.fallback.unwrap_or(self.reads.fallback) }
    }

    /// Returns `true` if a replica is well, and fresh enough for the read.
    fn is_fit(&self, i: usize, options: &ReadOptions) -> bool {
        let (placed, lag) = (&self.nodes[i], self.topology.nodes[i].lag);
        match options.max_lag {
            None => placed.fit,
            Some(limit) => {
                placed.well && lag.is_some_and(|lag| lag.is_within(limit, self.reads.max_lag_bytes))
            }
        }
    }

    /// Returns `true` if a node is preferred for its zone.
    fn is_near(&self, placed: &Placed, options: &ReadOptions) -> bool {
        match &options.zone {
            None => placed.near,
            Some(zone) => placed.node.config().zone() == Some(&**zone),
        }
    }
}
