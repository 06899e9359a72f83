//! The nodes at one moment, and which of them may serve a read.

use std::sync::Arc;

use tokio::time::Instant;

use super::ejection::OutlierEjection;
use crate::config::{Fallback, ReadSettings};
use crate::error::ConnectError;
use crate::options::ReadOptions;
use crate::topology::Node;
use crate::topology::routing::{Candidate, Tier};
use crate::topology::{NodeRole, ProbeError, Topology};

/// The nodes at one moment, for the set's internal use.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The part that users see.
    pub(crate) topology: Arc<Topology>,
    /// The nodes, in the order of the topology.
    pub(crate) nodes: Vec<NodeView>,
    /// The index of the primary, if there is exactly one.
    pub(crate) primary: Option<usize>,
    pub(super) reads: ReadSettings,
}

/// A node with its health and its fitness for reads.
#[derive(Debug)]
pub(crate) struct NodeView {
    pub(crate) node: Arc<Node>,
    pub(crate) role: NodeRole,
    /// `true` if the node is a healthy replica.
    pub(super) well: bool,
    /// `true` if the node is also fresh enough, by the configuration.
    pub(super) fit: bool,
    /// `true` if the node may serve stale reads, because there is no primary.
    pub(super) last_resort: bool,
    pub(super) near: bool,
    pub(super) recovery: OutlierEjection,
    pub(super) probe_error: Option<ProbeError>,
}

impl NodeView {
    /// Returns the monitor's connect error, if it makes the node unavailable.
    pub(crate) fn connect_error(&self) -> Option<&Arc<ConnectError>> {
        match &self.probe_error {
            Some(ProbeError::Connect(error)) => Some(error),
            _ => None,
        }
    }
}

impl Snapshot {
    /// Returns `true` if the monitors of all nodes keep this state up to date.
    pub(crate) fn is_up_to_date(&self, now: Instant) -> bool {
        !self.nodes.iter().any(|view| view.node.stats().heartbeat.is_overdue(now))
    }

    /// Returns the limit of concurrent reads during slow start, if there is one.
    pub(crate) fn allowance(&self, view: &NodeView, now: Instant) -> Option<u32> {
        view.recovery.allowance(&self.reads, now)
    }

    /// Returns the nodes that may serve a read now.
    ///
    /// If the read asks for the primary first, the primary is listed twice. It comes before all others, and again
    /// in its own tier, in case it has no slot for the read.
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

    /// Returns the policy for reads on the primary.
    ///
    /// If the primary is the only node, it is no fallback.
    fn fallback(&self, options: &ReadOptions) -> Fallback {
        if self.nodes.len() == 1 { Fallback::Always } else { options.fallback.unwrap_or(self.reads.fallback) }
    }

    /// Returns `true` if a replica is healthy, and fresh enough for the read.
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
