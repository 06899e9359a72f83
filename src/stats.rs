//! Statistics of a node, from its connections and its monitor.
//!
//! The path of every statement updates these numbers, so each is an atomic and none takes a lock.
//!
//! * `node_stats`: signs of life and of trouble, and reads in flight
//! * `latency`: the moving average of the time that answers take
//! * `percentile`: the 99th percentile of the time that whole reads take
//! * `heartbeat`: whether the node's monitor is alive
//! * `server`: the server behind the node's address, as its monitor last saw it

pub(crate) use self::latency::LatencyEwma;
pub(crate) use self::node_stats::{Asking, NodeStats};
pub(crate) use self::percentile::P99Estimator;
pub(crate) use self::server::SeenServer;
pub(crate) use self::server::ServerIdentity;

mod heartbeat;
mod latency;
mod node_stats;
mod percentile;
mod server;
