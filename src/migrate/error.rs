//! The errors of migrating.

use std::error::Error as StdError;
use std::time::Duration;

/// The errors of [`run`](super::run) and [`pending`](super::pending).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The server is a standby now, although it was the primary at the checkout.
    #[error("{node} is a standby: migrate the primary, with a connection from `ReplicaSet::write`")]
    NotPrimary {
        /// The node's name.
        node: String,
    },
    /// The session may not write.
    ///
    /// The server, the database or the role sets `default_transaction_read_only`.
    #[error(
        "{node} is read-only: set `default_transaction_read_only` to off for the database and the role that migrate"
    )]
    ReadOnly {
        /// The node's name.
        node: String,
    },
    /// Another program was still migrating at the end of the wait. Nothing was applied.
    #[error(
        "another program has been migrating {node} for {waited:?}: wait for it, or end it (advisory lock {key} in `pg_locks`)"
    )]
    Locked {
        /// The node's name.
        node: String,
        /// The time waited.
        waited: Duration,
        /// The key of the advisory lock.
        key: i64,
    },
    /// A migration failed. The named ones before it stay applied.
    #[error("migration {name} failed: correct it and run the migrations again")]
    Migration {
        /// The migration's name.
        name: String,
        /// The names of the migrations applied before it.
        applied: Vec<String>,
        /// The cause.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The migrations cannot be read.
    #[error("the migrations cannot be read")]
    Source(#[source] Box<dyn StdError + Send + Sync>),
    /// The table of applied migrations can be neither read nor made.
    #[error("the table of applied migrations (`__diesel_schema_migrations`) cannot be used")]
    Record(#[source] Box<dyn StdError + Send + Sync>),
    /// A statement before the migrations failed.
    #[error(transparent)]
    Query(#[from] diesel::result::Error),
    /// The runtime is shutting down. The migrations applied so far stay applied.
    #[error("the program is shutting down: run the migrations again")]
    Interrupted,
}
