//! Looking after the nodes: one monitor each, on a connection of its own.
//!
//! * `probe`: one look at a node, one query
//! * `condition`: from looks to a node's health (pure)
//! * `recovery`: ejection and slow start of a node that comes back (pure)
//! * `board`: where the monitors post what they see, and the topology comes from
//! * `snapshot`: the nodes as they stand at one moment, and which of them may serve a read
//! * `reason`: why a node does not serve, in words (pure)
//! * `changes`: what differs between two snapshots
//! * `dial_limit`: how long a monitor lets a new session take (pure)
//! * `search`: since when a primary is being looked for (pure)
//! * `schedule`: when a monitor looks again (pure)
//! * `restart`: a task that is started again when it panics
//! * `monitor`: the task that looks
//! * `patience`: waiting that tells a slow peer from a slow self

pub(crate) use self::board::Board;
pub(crate) use self::monitor::Monitor;
pub(crate) use self::snapshot::{Placed, Snapshot};

mod board;
mod changes;
mod condition;
mod dial_limit;
mod monitor;
pub(crate) mod patience;
mod probe;
mod reason;
mod recovery;
mod restart;
mod schedule;
mod search;
mod snapshot;
