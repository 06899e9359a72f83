//! The health of the set, for people and for a health endpoint.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::topology::{Health, NodeRole, NodeStatus, PrimaryStatus};
use crate::topology::{NodeView, Snapshot};

/// The status of a set as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// Every node serves.
    Healthy,
    /// There is a primary, but a replica is missing, unfit or fenced.
    Degraded,
    /// There is no primary, so nothing can be written.
    Unhealthy,
    /// The monitors have ended or stand still.
    ///
    /// The report is old, and writes wait until the monitors run again.
    Stale,
}

/// The health of a set and its nodes.
///
/// ```no_run
/// # fn example(set: &pointsman::ReplicaSet) {
/// let report = set.health();
/// println!("{:?}, {} nodes", report.status, report.nodes.len());
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct HealthReport {
    /// The status of the set as a whole.
    pub status: Status,
    /// The node that may take writes, or why there is none.
    pub primary: PrimaryStatus,
    /// `true` if the primary alone serves reads.
    ///
    /// No replica does so, or none is configured.
    pub reads_on_primary_only: bool,
    /// Seconds since the set was started.
    pub uptime_seconds: u64,
    /// The memory file; `None` if none is configured.
    pub memory: Option<MemoryReport>,
    /// The nodes, in the order of the configuration.
    pub nodes: Vec<NodeReport>,
}

/// The state of the memory file (`topology.memory_file`).
///
/// A problem with it changes no status, because the set goes on as without a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemoryReport {
    /// `true` if the file has what the set knows.
    pub saved: bool,
    /// The fault of the file that was found, and the place where it is kept.
    pub found: Option<String>,
    /// The reason why the file cannot be used at present; the set tries again.
    pub error: Option<String>,
}

/// The state of one node, and its counters.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct NodeReport {
    /// The node as last observed.
    #[serde(flatten)]
    pub status: NodeStatus,
    /// Read checkouts from this node, since the start.
    pub reads: u64,
    /// Write checkouts from this node, since the start.
    pub writes: u64,
    /// Probes that this program sent to the node, since the start.
    pub probes: u64,
    /// Milliseconds since the last probe had its result.
    pub probed_ms_ago: Option<u64>,
    /// Connections that are handed out.
    pub in_use: u32,
    /// Connections that are open, in use or idle.
    pub connections: u32,
    /// Average latency of its answers, in microseconds.
    pub latency_us: Option<u64>,
}

impl HealthReport {
    pub(super) fn of(
        snapshot: &Snapshot,
        uptime: Duration,
        watched: bool,
        memory: Option<MemoryReport>,
    ) -> Self {
        let topology = &snapshot.topology;
        let serves = |node: &NodeStatus| match node.role {
            // The node serves under another name.
            NodeRole::Alias => true,
            NodeRole::Primary => node.health == Health::Up,
            _ => node.serves_reads && node.health == Health::Up,
        };
        let status = match topology.primary {
            _ if !watched => Status::Stale,
            PrimaryStatus::One { .. } if topology.nodes.iter().all(serves) => Status::Healthy,
            PrimaryStatus::One { .. } => Status::Degraded,
            PrimaryStatus::None
            | PrimaryStatus::SplitBrain { .. }
            | PrimaryStatus::IdentifierMismatch { .. } => Status::Unhealthy,
        };
        Self {
            status,
            primary: topology.primary.clone(),
            reads_on_primary_only: topology.reads_on_primary_only(),
            uptime_seconds: uptime.as_secs(),
            memory,
            nodes: topology.nodes.iter().zip(&snapshot.nodes).map(NodeReport::of).collect(),
        }
    }
}

impl NodeReport {
    fn of((status, view): (&NodeStatus, &NodeView)) -> Self {
        let node = &view.node;
        let stats = node.stats();
        let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let micros = |latency: Duration| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        Self {
            status: status.clone(),
            reads: stats.reads.load(Ordering::Relaxed),
            writes: stats.writes.load(Ordering::Relaxed),
            probes: stats.probes.load(Ordering::Relaxed),
            probed_ms_ago: stats.heartbeat.age(Instant::now()).map(millis),
            in_use: node.leased(),
            connections: node.connections(),
            latency_us: stats.latency.average().map(micros),
        }
    }
}
