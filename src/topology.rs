//! The roles of the nodes, as the monitors last saw them.
//!
//! Each monitor probes one node and posts the outcome. From the outcomes, a pure function finds the primary and
//! the lag of each replica. A new [`Topology`] then replaces the old one as a whole. A checkout reads the
//! topology without a lock and sends no query to any node.
//!
//! The decisions are pure:
//!
//! * `observation`: the result of one probe
//! * `health`: from probes to a node's health
//! * `ejection`: outlier ejection and slow start of a node that comes back
//! * `role`: the role in which a node serves a connection
//! * `roles`: from observations to roles, with the rules of fencing
//! * `lineage`: whether a standby follows the primary's history or has diverged from it
//! * `ancestry`: whether the present history contains a position of an earlier one
//! * `alias`: one server under several names
//! * `identity`: which cluster the set belongs to
//! * `replacement`: when another cluster has replaced the set's own
//! * `history`: what the set remembers of the nodes, and when it forgets
//! * `memory`: the part of it that outlives the program; `memory/file` has the file
//! * `recoveries`: how each primary came to write
//! * `lag`: how far a replica is behind
//! * `requirement`: what a causal token requires of a node
//! * `eligibility`: which node may serve a read, and in which tier
//! * `routing`: which of the eligible nodes serves it
//! * `snapshot`: the nodes at one moment
//! * `reason`: why a node does not serve, in words
//! * `schedule`, `search`, `dial_limit`: when a monitor probes, and how long it waits
//! * `stall`: notices that the answers of the primary's sessions stop
//!
//! The rest acts:
//!
//! * `node`: one server with its pools
//! * `probe`: one query to a node
//! * `prober`: the session over which a node is probed
//! * `monitor`: the task that probes a node
//! * `restart`: starts a task again after a panic
//! * `state`: the state that the monitors update, from which the topology is built
//! * `changes`: differences between two snapshots, and their lines in the log

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

pub(crate) use self::eligibility::{NodeFilter, Rank, Tier};
pub(crate) use self::history::{LostHistory, RoleHistory};
pub(crate) use self::lineage::Lineage;
pub(crate) use self::memory::{Memory, Remembered, file as memory_file};
pub(crate) use self::monitor::Monitor;
pub(crate) use self::node::{Node, NodeId, Retired};
pub(crate) use self::observation::{LastSeen, Observation, ProbeError};
pub(crate) use self::recoveries::{Recoveries, Recovery};
pub(crate) use self::requirement::{Known, Requirement};
pub(crate) use self::role::Role;
pub(crate) use self::roles::{Roles, Seen, resolve_roles};
pub(crate) use self::snapshot::{NodeView, Snapshot};
pub(crate) use self::state::TopologyState;
use crate::error::ShownIdentifier;
use crate::lsn::Lsn;

mod alias;
mod ancestry;
mod changes;
mod dial_limit;
mod ejection;
mod eligibility;
mod health;
mod history;
mod identity;
mod lag;
mod lineage;
mod memory;
mod monitor;
mod node;
mod observation;
mod probe;
mod prober;
mod reason;
mod recoveries;
mod replacement;
mod requirement;
mod restart;
pub(crate) mod role;
mod roles;
pub(crate) mod routing;
mod schedule;
mod search;
mod snapshot;
mod stall;
mod state;

/// The role that the set found for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeRole {
    /// No probe has reached the node yet, or none since it went down.
    Unknown,
    /// The one primary, on the highest timeline ever seen.
    Primary,
    /// A standby of the set.
    Replica,
    /// One of several primaries on the highest timeline.
    ///
    /// Some of them may be out of sight.
    ///
    /// The node takes no writes, and reads only if no other node can.
    Conflicting,
    /// A primary on an old timeline: it was replaced, came back, and is fenced.
    StalePrimary,
    /// A node of another cluster, by its system identifier. The set fences it.
    Foreign,
    /// The same server as another node, by another name or address.
    ///
    /// The other node serves.
    Alias,
    /// Out of recovery although configured as not promotable. The set fences it.
    NotPromotable,
}

impl NodeRole {
    /// Returns `true` if the pools keep no connection to such a node.
    pub(crate) fn is_fenced(self) -> bool {
        matches!(self, Self::StalePrimary | Self::Foreign | Self::NotPromotable)
    }
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Conflicting => "conflicting",
            Self::StalePrimary => "stale_primary",
            Self::Foreign => "foreign",
            Self::Alias => "alias",
            Self::NotPromotable => "not_promotable",
        })
    }
}

/// Health of a node, by its probes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Health {
    /// The monitor has not probed the node yet.
    #[default]
    Unknown,
    /// The node answers.
    Up,
    /// The node missed one probe; reads go elsewhere until the next one.
    Suspect,
    /// The node has no connection slot left; open connections still work.
    TooManyConnections,
    /// The node rejects the login.
    LoginRejected,
    /// The monitor cannot check the node, which may well be healthy.
    ///
    /// Either the server is known to be alive, or the reason is on this machine.
    ///
    /// The node keeps its role and its sessions.
    Unchecked,
    /// The node is starting up or shutting down.
    Starting,
    /// The node does not answer.
    Down,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::TooManyConnections => "too_many_connections",
            Self::LoginRejected => "login_rejected",
            Self::Unchecked => "unchecked",
            Self::Starting => "starting",
            Self::Down => "down",
        })
    }
}

/// Replication lag of a replica behind its primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Lag {
    /// WAL that the primary has written and the replica has not replayed.
    ///
    /// The unit is bytes.
    ///
    /// `None` if no primary is known.
    pub bytes: Option<u64>,
    /// Longest time for which a write can be missing on the replica.
    ///
    /// The age of the measurement is included. `None` if the time is unknown.
    #[serde(serialize_with = "as_millis", rename = "time_ms")]
    pub time: Option<Duration>,
}

impl Lag {
    /// Returns `true` if the lag is known and within these limits.
    pub(crate) fn is_within(self, time: Duration, bytes: Option<u64>) -> bool {
        self.time.is_some_and(|lag| lag <= time)
            && bytes.is_none_or(|limit| self.bytes.is_some_and(|lag| lag <= limit))
    }
}

fn as_millis<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).serialize(serializer)
}

/// One node, as its monitor last saw it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct NodeStatus {
    /// The node's name.
    pub name: String,
    /// Host, port and database, without credentials.
    pub address: String,
    /// The node's zone, if one is configured.
    pub zone: Option<String>,
    /// The configured tags.
    pub tags: Vec<String>,
    /// The role that the set found.
    pub role: NodeRole,
    /// Health of the node, by its probes.
    pub health: Health,
    /// The reason why the node is not healthy, in words, if it is not.
    pub reason: Option<String>,
    /// `true` if the set may send reads to the node.
    pub serves_reads: bool,
    /// `true` if the set may send writes to the node.
    pub serves_writes: bool,
    /// The node's timeline, if a probe has shown it.
    pub timeline: Option<u32>,
    /// The position up to which a primary has written, or a standby has replayed.
    pub position: Option<Lsn>,
    /// Replication lag of a replica.
    pub lag: Option<Lag>,
    /// `true` if a standby is connected to its primary.
    pub streaming: Option<bool>,
}

/// Which node may take writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[non_exhaustive]
pub enum PrimaryStatus {
    /// There is one primary.
    One {
        /// The primary's name.
        node: String,
        /// The primary's timeline.
        timeline: u32,
    },
    /// No primary is known.
    None,
    /// Several nodes took writes on one timeline, so the set writes to none.
    ///
    /// This lasts until all but one are gone for good: rebuilt as standbys, or removed from the configuration.
    /// A node that is out of sight still counts.
    SplitBrain {
        /// The names of these nodes.
        nodes: Vec<String>,
        /// Their timeline.
        timeline: u32,
    },
    /// The nodes belong to different clusters, and no majority decides.
    IdentifierMismatch {
        /// The identifier that each node showed.
        nodes: Vec<ShownIdentifier>,
    },
}

/// An immutable snapshot of the nodes and their roles.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Topology {
    /// Number of this snapshot; it grows with each one.
    pub version: u64,
    /// Which node may take writes.
    pub primary: PrimaryStatus,
    /// The nodes, in the order of the configuration.
    pub nodes: Vec<NodeStatus>,
}

impl Topology {
    /// Returns the node with this name.
    pub fn node(&self, name: &str) -> Option<&NodeStatus> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Returns `true` if no node besides the primary serves reads.
    pub fn reads_on_primary_only(&self) -> bool {
        !self.nodes.iter().any(|node| node.serves_reads && node.role == NodeRole::Replica)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Display;

    use super::*;

    fn is_spelled_alike(states: &[impl Display + Serialize]) {
        for state in states {
            assert_eq!(serde_json::to_value(state).unwrap(), state.to_string());
        }
    }

    /// `Display`, which logs use, said "stale primary", and the health report `stale_primary`.
    #[test]
    fn display_and_json_spell_a_state_alike() {
        is_spelled_alike(&[Role::Primary, Role::Replica, Role::Unmanaged]);
        is_spelled_alike(&[
            NodeRole::Unknown,
            NodeRole::Primary,
            NodeRole::Replica,
            NodeRole::Conflicting,
            NodeRole::StalePrimary,
            NodeRole::Foreign,
            NodeRole::Alias,
            NodeRole::NotPromotable,
        ]);
        is_spelled_alike(&[
            Health::Unknown,
            Health::Up,
            Health::Suspect,
            Health::TooManyConnections,
            Health::LoginRejected,
            Health::Unchecked,
            Health::Starting,
            Health::Down,
        ]);
    }
}
