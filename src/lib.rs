//! Pointsman
pub use self::config::{Config, ConfigError};
pub use self::conn::{AsyncFunc, Conn, TransactionBuilder};
pub use self::error::*;
pub use self::intent::{Intent, Read, Writable, Write};
pub use self::replica_set::{HealthReport, ReplicaSet};
pub use self::run_query::{RunQueryDsl, SaveChangesDsl};
pub use self::statement::{AssumeReadOnly, Permits, ReadOnly, SetOperation, assume_read_only};
pub use self::topology::{Role, Topology};
pub mod backoff;
pub mod causal;
pub mod config;
pub mod conn;
pub mod error;
mod health;
pub mod intent;
mod link;
mod node;
mod pool;
pub mod replica_set;
pub mod run_query;
pub mod statement;
pub mod topology;

/// Everything that a file needs to run statements: Diesel's prelude, with Pointsman's traits in the place of Diesel's.
pub mod prelude {
    pub use diesel::prelude::*;
    pub use diesel::result::QueryResult;

    pub use crate::{Conn, Intent, Read, ReadOnly, RunQueryDsl, SaveChangesDsl, Writable, Write};
}

#[cfg(feature = "testkit")]
pub mod testkit;
