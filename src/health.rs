//! Looking after the nodes: one monitor each, on a connection of its own.
//!
//! * `probe`: one look at a node, one query
//! * `condition`: from looks to a node's health (pure)
//! * `recovery`: ejection and ramp of a node that comes back (pure)
//! * `board`: where the monitors post what they see, and the topology comes from
//! * `dial_limit`: how long a monitor lets a new session take (pure)
//! * `search`: since when a primary is being looked for (pure)
//! * `schedule`: when a monitor looks again (pure)
//! * `restart`: a task that is started again when it panics
//! * `monitor`: the task that looks
//! * `patience`: waiting that tells a slow peer from a slow self

pub(crate) use self::board::{Board, Placed, Snapshot};
pub(crate) use self::monitor::Monitor;

mod board;
mod condition;
mod dial_limit;
mod monitor;
pub(crate) mod patience;
mod probe;
mod recovery;
mod restart;
mod schedule;
mod search;
