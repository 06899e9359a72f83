//! Who is who: the roles of the nodes, as they were last seen.
//!
//! The monitors look at the nodes and post what they see. From that, a pure function judges which node is the
//! primary and how far each replica lags, and a new [`Topology`] replaces the old one as a whole. A checkout
//! reads it without a lock and asks no node anything.
//!
//! What decides is pure:
//!
//! * `observation`: what a probe of a node showed
//! * `health`: from probes to a node's health
//! * `ejection`: outlier ejection and slow start of a node that comes back
//! * `roles`: from observations to roles; the rules of fencing stand there
//! * `lineage`: whether a standby has what the primary has, or has parted from it
//! * `alias`: one server under several names
//! * `identity`: which cluster the set belongs to
//! * `history`: what is remembered of the nodes, and when it no longer holds
//! * `recoveries`: how the primaries came to write
//! * `lag`: how far a replica is behind
//! * `routing`: which node serves a read
//! * `snapshot`: the nodes at one moment, and which of them may serve a read
//! * `changes`: what differs between two snapshots
//! * `reason`: why a node does not serve, in words
//! * `schedule`, `search`, `dial_limit`: when a monitor probes, and how long it waits
//!
//! What acts:
//!
//! * `node`: one server with its pools
//! * `probe`: one query to a node
//! * `monitor`: the task that probes a node
//! * `restart`: starts a task again when it panics
//! * `state`: where the monitors post what they see, and from which the topology comes

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

pub(crate) use self::history::{LostHistory, RoleHistory};
pub(crate) use self::lineage::Lineage;
pub(crate) use self::monitor::Monitor;
pub(crate) use self::node::{Node, NodeId, Retired};
pub use self::observation::{LastSeen, Observation, ProbeError};
pub(crate) use self::recoveries::{Recoveries, Recovery};
pub(crate) use self::roles::{Roles, Seen, resolve_roles};
pub(crate) use self::snapshot::{NodeView, Snapshot};
pub(crate) use self::state::TopologyState;
pub use crate::error::ShownIdentifier;
use crate::lsn::Lsn;

mod alias;
mod changes;
mod dial_limit;
mod ejection;
mod health;
mod history;
mod identity;
mod lag;
mod lineage;
mod monitor;
mod node;
mod observation;
mod probe;
mod reason;
mod recoveries;
mod restart;
mod roles;
pub(crate) mod routing;
mod schedule;
mod search;
mod snapshot;
mod state;

/// The role in which a node serves a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It replays what the primary wrote.
    Replica,
    /// Not known, because the connection was opened by its user and not by a set: see
    /// [`Conn::borrow_from`](crate::Conn::borrow_from).
    Unmanaged,
}

impl Role {
    /// The role in lower case, as logs and headers spell it.
    ///
    /// ```
    /// assert_eq!(pointsman::Role::Replica.as_str(), "replica");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Unmanaged => "unmanaged",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a node is found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeRole {
    /// It was not seen yet, or not since it was lost.
    Unknown,
    /// The one primary, on the highest timeline ever seen.
    Primary,
    /// A standby of the set.
    Replica,
    /// One of several primaries on the highest timeline, some of which may be out of sight. It takes no writes, and
    /// reads only if no other node can.
    Conflicting,
    /// A primary on an old timeline: it was replaced, and came back. It is fenced.
    StalePrimary,
    /// Its system identifier is another one: it belongs to another cluster. It is fenced.
    Foreign,
    /// It is the same server as another node, by another name or address, and that one serves.
    Alias,
    /// It is out of recovery although it is configured as not promotable. It is fenced.
    NotPromotable,
}

impl NodeRole {
    /// Returns `true` if the set ends its connections to such a node and makes no new ones.
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

/// How a node is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Health {
    /// It was not looked at yet.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It missed one probe; reads go elsewhere until the next one.
    Suspect,
    /// It has no connection slot left; the connections that there are work.
    TooManyConnections,
    /// It refuses the login.
    LoginRejected,
    /// Its monitor cannot check it, although the server is alive, or for a reason on this machine. Its role and its
    /// sessions are kept.
    Unchecked,
    /// It is starting up or shutting down.
    Starting,
    /// It does not answer.
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

/// How far a replica is behind its primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Lag {
    /// WAL that the primary had written and the replica not replayed, in bytes; `None` where no primary is known.
    pub bytes: Option<u64>,
    /// The longest time that anything on the primary can be missing here, with the age of the
    /// measurement in it; `None` where it is unknown.
    #[serde(serialize_with = "as_millis", rename = "time_ms")]
    pub time: Option<Duration>,
}

impl Lag {
    /// Returns `true` if a replica is known to be no further behind.
    pub(crate) fn is_within(self, time: Duration, bytes: Option<u64>) -> bool {
        self.time.is_some_and(|lag| lag <= time)
            && bytes.is_none_or(|limit| self.bytes.is_some_and(|lag| lag <= limit))
    }
}

fn as_millis<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).serialize(serializer)
}

/// One node, as it was last seen.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Where it is: host, port and database, without credentials.
    pub address: String,
    /// Its zone, where one was configured.
    pub zone: Option<String>,
    /// The tags that were configured.
    pub tags: Vec<String>,
    /// What it was found to be.
    pub role: NodeRole,
    /// How it is.
    pub health: Health,
    /// In words: why it is not well, where it is not.
    pub reason: Option<String>,
    /// Whether reads may be sent to it.
    pub serves_reads: bool,
    /// Whether writes may be sent to it.
    pub serves_writes: bool,
    /// Its timeline, where it was seen.
    pub timeline: Option<u32>,
    /// How far it has written (a primary) or replayed (a standby).
    pub position: Option<Lsn>,
    /// How far a replica is behind.
    pub lag: Option<Lag>,
    /// Whether a standby is connected to its primary.
    pub streaming: Option<bool>,
}

/// Who may take writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[non_exhaustive]
pub enum PrimaryStatus {
    /// There is one primary.
    One {
        /// Its name.
        node: String,
        /// Its timeline.
        timeline: u32,
    },
    /// None is known.
    None,
    /// Several nodes took writes on one timeline, so none of them gets any from this set until all but one are gone for
    /// good: rebuilt as standbys, or out of the configuration. One that is out of sight still counts.
    SplitBrain {
        /// Their names.
        nodes: Vec<String>,
        /// Their timeline.
        timeline: u32,
    },
    /// The nodes belong to different clusters, and the majority does not tell which is the set's.
    IdentifierMismatch {
        /// What each node showed.
        nodes: Vec<ShownIdentifier>,
    },
}

/// The nodes and their roles at one moment: an immutable snapshot.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Topology {
    /// Grows with every snapshot.
    pub version: u64,
    /// Who may take writes.
    pub primary: PrimaryStatus,
    /// The nodes, in the order of the configuration.
    pub nodes: Vec<NodeStatus>,
}

impl Topology {
    /// Finds a node by its name.
    pub fn node(&self, name: &str) -> Option<&NodeStatus> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Whether reads can only be served by the primary, since no other node serves them.
    pub fn reads_on_primary_only(&self) -> bool {
        !self.nodes.iter().any(|node| node.serves_reads && node.role == NodeRole::Replica)
    }
}
