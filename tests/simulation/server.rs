//! Simulated PostgreSQL servers: as much of them as the set uses.
//!
//! * `wal`, `node`: a log with its timelines, a data directory, replication, promotion, recovery (pure)
//! * `statement`, `session`: the statements that are known, and one session (pure)
//! * `message`: the messages of the protocol
//! * `cluster`: all servers, and what they do by themselves as time passes
//! * `connection`: the task that serves one connection

pub(crate) mod cluster;
pub(crate) mod connection;
pub(crate) mod message;
pub(crate) mod node;
pub(crate) mod session;
pub(crate) mod statement;
pub(crate) mod wal;
