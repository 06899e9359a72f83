//! The nodes as they stand at one moment, and which of them may serve a read.

use std::sync::Arc;

use tokio::time::Instant;

use super::ejection::OutlierEjection;
use crate::config::{Fallback, ReadSettings};
use crate::error::ConnectError;
use crate::options::ReadOptions;
use crate::topology::Node;
use crate::topology::routing::{Candidate, Tier};
use crate::topology::{NodeRole, ProbeError, Topology};

/// The nodes as they stand at one moment, for the set's own use.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// What users see of it.
    pub(crate) topology: Arc<Topology>,
    /// The nodes, in the order of the topology.
    pub(crate) nodes: Vec<NodeView>,
    /// The primary, if there is exactly one.
    pub(crate) primary: Option<usize>,
    pub(super) reads: ReadSettings,
}

/// A node and its place.
#[derive(Debug)]
pub(crate) struct NodeView {
    pub(crate) node: Arc<Node>,
    pub(crate) role: NodeRole,
    /// Whether it is a replica, and well.
    pub(super) well: bool,
    /// Whether it is fresh enough as well, by the configuration.
    pub(super) fit: bool,
    /// Whether it may serve what no other node can serve better, because there is no primary.
    pub(super) last_resort: bool,
    pub(super) near: bool,
    pub(super) recovery: OutlierEjection,
    pub(super) probe_error: Option<ProbeError>,
}

impl NodeView {
    /// The error with which its monitor could not connect, if that is why the node is not there.
    pub(crate) fn connect_error(&self) -> Option<&Arc<ConnectError>> {
        match &self.probe_error {
            Some(ProbeError::Connect(error)) => Some(error),
            _ => None,
        }
    }
}

impl Snapshot {
    /// Returns `true` if the monitors of all nodes keep what is known of them up to date.
    pub(crate) fn is_up_to_date(&self, now: Instant) -> bool {
        !self.nodes.iter().any(|view| view.node.stats().heartbeat.is_overdue(now))
    }

    /// How many reads at once a node that is just back may have for now; `None` sets no limit.
    pub(crate) fn allowance(&self, view: &NodeView, now: Instant) -> Option<u32> {
        view.recovery.allowance(&self.reads, now)
    }

    /// Returns the nodes that may serve a read now.
    ///
    /// The primary is there twice if the read asks for it first: before all others, and in its own tier, in case it has no
    /// place for the read.
    pub(crate) fn candidates(&self, options: &ReadOptions, now: Instant) -> Vec<Candidate> {
        let fallback = self.fallback(options);
        let candidate = |(i, view): (usize, &NodeView)| {
            let stats = view.node.stats();
            let load = stats.in_flight.load(std::sync::atomic::Ordering::Relaxed);
            let ramping = || self.allowance(view, now).is_some_and(|allowed| load >= allowed);
            let as_replica = || match self.is_near(view, options) {
                _ if view.recovery.is_ejected(now) || ramping() => Tier::Recovering,
                true => Tier::Near,
                false => Tier::Fit,
            };
            let tier = match view.role {
                NodeRole::Primary if fallback == Fallback::Always && stats.is_doubtful(now) => {
                    Tier::Suspected
                }
                NodeRole::Primary if fallback == Fallback::Always => as_replica(),
                NodeRole::Primary if fallback == Fallback::WhenUnfit => Tier::Fallback,
                NodeRole::Replica if self.is_fit(i, options) && stats.is_doubtful(now) => Tier::Suspected,
                NodeRole::Replica if self.is_fit(i, options) => as_replica(),
                _ if view.last_resort => Tier::Stale,
                _ => return None,
            };
            let (latency, weight) = (stats.latency.average(), view.node.config().weight());
            let overdue = stats.overdue_answers();
            Some(Candidate { node: i, tier, load, overdue, latency, weight })
        };
        let mut candidates: Vec<_> = self.nodes.iter().enumerate().filter_map(candidate).collect();
        if options.prefer_primary && fallback != Fallback::Never && self.nodes.len() > 1 {
            let is_sound = |candidate: &&Candidate| {
                let view = &self.nodes[candidate.node];
                self.primary == Some(candidate.node)
                    && !view.node.stats().is_doubtful(now)
                    && !view.recovery.is_ejected(now)
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
        let (view, lag) = (&self.nodes[i], self.topology.nodes[i].lag);
        match options.max_lag {
            None => view.fit,
            Some(limit) => view.well && lag.is_some_and(|lag| lag.is_within(limit, self.reads.max_lag_bytes)),
        }
    }

    /// Returns `true` if a node is preferred for its zone.
    fn is_near(&self, view: &NodeView, options: &ReadOptions) -> bool {
        match &options.zone {
            None => view.near,
            Some(zone) => view.node.config().zone() == Some(&**zone),
        }
    }
}
