//! The nodes at one moment, and those of them that may serve a read.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::ancestry::{Ancestry, Containment};
use super::ejection::OutlierEjection;
use super::eligibility::{Eligibility, NodeFacts, NodeFilter, Rank, ReadDemand, Tier, eligibility};
use super::requirement::{History, Known, Requirement, requirement};
use crate::config::Config;
use crate::error::{CausalError, ConnectError};
use crate::lsn::{Lsn, PositionLog};
use crate::options::ReadOptions;
use crate::token::CausalToken;
use crate::topology::Node;
use crate::topology::routing::Candidate;
use crate::topology::{Health, NodeRole, ProbeError, Topology};

/// Most bytes of WAL that a cluster writes between two probes (400 ms).
///
/// Few disks write more than 2 GB/s. A higher position is checked with a probe before it is believed.
#[cfg(feature = "tower")]
const MAX_UNSEEN: u64 = 1 << 30;

/// The nodes at one moment, for the set's internal use.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The part that users see.
    pub(crate) topology: Arc<Topology>,
    /// The nodes, in the order of the topology.
    pub(crate) nodes: Vec<NodeView>,
    /// The index of the primary, if there is exactly one.
    pub(crate) primary: Option<usize>,
    /// The identifier of the cluster, once it is known.
    pub(crate) system_identifier: Option<u64>,
    /// The timelines from which the present history descends.
    pub(crate) ancestry: Ancestry,
    pub(super) config: Arc<Config>,
}

/// A node with what its status does not show to users.
#[derive(Debug)]
pub(crate) struct NodeView {
    pub(crate) node: Arc<Node>,
    pub(crate) role: NodeRole,
    /// `true` if the node's history has parted from the primary's.
    pub(super) diverged: bool,
    /// `true` if the node's history is known to be that of the primary.
    pub(super) follows: bool,
    /// When the last answered probe of the node was sent.
    pub(crate) observed_at: Option<Instant>,
    pub(super) ejection: OutlierEjection,
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
    /// Closes the connections that could write to another node than the primary.
    pub(super) fn fence(&self) {
        for (i, view) in self.nodes.iter().enumerate() {
            if self.primary != Some(i) {
                view.node.close_writes();
            }
            if view.role.is_fenced() {
                view.node.close_now();
            }
        }
    }

    /// Returns `true` if the monitors of all nodes keep this state up to date.
    pub(crate) fn is_up_to_date(&self, now: Instant) -> bool {
        !self.nodes.iter().any(|view| view.node.stats().heartbeat.is_overdue(now))
    }

    /// Returns the limit of concurrent reads during slow start, if there is one.
    pub(crate) fn read_limit(&self, view: &NodeView, now: Instant) -> Option<u32> {
        view.ejection.read_limit(self.config.reads(), now)
    }

    /// Returns the nodes that may serve a read now.
    ///
    /// If the read asks for the primary first, the primary is listed twice. It comes before all others, and again
    /// in its own tier, in case it has no slot for the read.
    pub(crate) fn candidates(
        &self,
        options: &ReadOptions,
        nodes: NodeFilter<'_>,
        position: Option<Lsn>,
        now: Instant,
    ) -> Vec<Candidate> {
        let read = ReadDemand::new(options, &self.config, nodes, position, self.primary.is_some());
        let mut candidates = Vec::with_capacity(self.nodes.len() + 1);
        for (node, view) in self.nodes.iter().enumerate() {
            let facts = self.facts(node, now);
            let (rank, is_preferred) = match eligibility(&facts, &read) {
                Eligibility::Eligible(rank) => (rank, false),
                Eligibility::Preferred(rank) => (rank, true),
                Eligibility::Excluded(_) => continue,
            };
            let stats = view.node.stats();
            let candidate = Candidate {
                node,
                rank,
                load: facts.in_flight,
                overdue: stats.overdue_answers(),
                latency: stats.latency.average(),
                weight: view.node.config().weight(),
            };
            candidates.push(candidate);
            if is_preferred {
                candidates.push(Candidate { rank: Rank { tier: Tier::Preferred, ..rank }, ..candidate });
            }
        }
        candidates
    }

    /// Returns what is known of a node now.
    fn facts(&self, node: usize, now: Instant) -> NodeFacts<'_> {
        let (view, status) = (&self.nodes[node], &self.topology.nodes[node]);
        let stats = view.node.stats();
        NodeFacts {
            id: view.node.id(),
            role: view.role,
            health: status.health,
            lag: status.lag,
            diverged: view.diverged,
            suspected: stats.is_doubtful(now),
            ejected: view.ejection.is_ejected(now),
            read_limit: self.read_limit(view, now),
            in_flight: stats.in_flight.load(Ordering::Relaxed),
            zone: view.node.config().zone(),
            follows: view.follows,
            position: stats.position(),
        }
    }

    /// Returns the token of what a session has seen.
    ///
    /// `None` if it has seen nothing, or the cluster is unknown.
    pub(crate) fn token(&self, log: &PositionLog) -> Option<CausalToken> {
        let (cluster, positions) = log.seen();
        CausalToken::of(cluster.or(self.system_identifier)?, positions)
    }

    /// Removes what the present history contains, if the session has seen newer.
    pub(crate) fn forget_ancestors(&self, log: &PositionLog) {
        let present = self.ancestry.timeline();
        let positions = log.positions();
        if positions.iter().any(|(timeline, _)| timeline == present) {
            log.retain(|timeline, position| {
                timeline >= present || self.ancestry.containment(timeline, position) != Containment::Contained
            });
        }
    }

    /// Returns what a token requires of a node.
    pub(crate) fn requirement(&self, token: &CausalToken) -> Result<Requirement, CausalError> {
        requirement(
            token,
            &History {
                system_identifier: self.system_identifier,
                ancestry: &self.ancestry,
                highest: self.highest_position(),
            },
        )
    }

    /// Returns the highest position that any node of the set is known to have reached.
    fn highest_position(&self) -> Lsn {
        let is_own = |view: &&NodeView| matches!(view.role, NodeRole::Primary | NodeRole::Replica);
        let positions = self.nodes.iter().filter(is_own).map(|view| view.node.stats().position());
        positions.max().unwrap_or_default()
    }

    /// Returns `true` if the position may have been written since the last probes.
    #[cfg(feature = "tower")]
    pub(crate) fn is_plausible(&self, required: &Requirement) -> bool {
        match required.known {
            Known::Written => true,
            Known::Ahead => {
                let ahead = required.position.as_u64().saturating_sub(self.highest_position().as_u64());
                ahead <= MAX_UNSEEN
            }
            Known::Unseen => false,
        }
    }

    /// Wakes the monitors, because a node may be further than its last probe showed.
    pub(crate) fn wake_monitors(&self) {
        for view in &self.nodes {
            view.node.stats().wake_monitor_for_position();
        }
    }

    /// Returns `true` if every node that could have shown a position was probed since.
    ///
    /// For a position on the present timeline, that is the primary alone.
    pub(crate) fn was_observed_since(&self, since: Instant, known: Known) -> bool {
        let is_later = |view: &NodeView| view.observed_at.is_some_and(|at| at >= since);
        match (known, self.primary) {
            (Known::Written, _) => true,
            (Known::Ahead, Some(primary)) => is_later(&self.nodes[primary]),
            (Known::Ahead | Known::Unseen, _) => {
                let is_up = |node: &usize| self.topology.nodes[*node].health == Health::Up;
                self.primary.is_some()
                    && (0..self.nodes.len()).filter(is_up).all(|node| is_later(&self.nodes[node]))
            }
        }
    }
}
