//! PostgreSQL with read replicas behind Diesel, with compile-time-typed intent.
//!
//! A pointsman sets the points, so that each train takes the right track. This crate does that for Diesel: a statement
//! runs on the nodes that its type allows. A [`ReplicaSet`] hands out [`Conn<Read>`](Conn), served by a replica, and
//! [`Conn<Write>`](Conn), served by the one true primary. A write on a `Conn<Read>` does not compile.
//!
//! ```no_run
//! use pointsman::prelude::*;
//! use pointsman::{Config, ReplicaSet};
//!
//! diesel::table! { users (id) { id -> Integer, name -> Text, } }
//!
//! # async fn example() -> Result<(), pointsman::Error> {
//! let set = ReplicaSet::connect(Config::from_env()?).await?;
//!
//! let conn = set.read().await?;
//! let names: Vec<String> = users::table.select(users::name).load(&conn).await?;
//!
//! let conn = set.write().await?;
//! diesel::insert_into(users::table).values(users::name.eq("Ada")).execute(&conn).await?;
//! # let _ = names;
//! # Ok(())
//! # }
//! ```
//!
//! ```compile_fail,E0277
//! # use pointsman::prelude::*;
//! # diesel::table! { users (id) { id -> Integer, name -> Text, } }
//! async fn add(conn: &Conn<Read>) -> QueryResult<usize> {
//!     // error: this statement is not known to only read, so a `Conn<Read>` cannot run it
//!     diesel::insert_into(users::table).values(users::name.eq("Ada")).execute(conn).await
//! }
//! ```
//!
//! # Where to start
//!
//! * [`prelude`]: the one import that a file needs
//! * [`Config`]: `DATABASE_URL` and `DATABASE_REPLICA_URL` are enough
//! * [`ReplicaSet`]: connections for reads and for writes
//! * [`ReadOptions`], [`WriteOptions`]: options of a single call
//! * [`Conn`], [`RunQueryDsl`]: running statements, and transactions
//! * [`Intent`], [`Writable`]: repositories that are generic over the intent
//! * [`ReadOnly`], [`CombineDsl`], [`assume_read_only`]: the statements that count as a read
//! * [`Error`] and its relatives: the causes of failures, and which calls are safe to repeat
//!
//! A name that most programs use stands at the root. The details of one subject have a module: [`config`],
//! [`topology`], [`health`], [`listen`].
//!
//! # What the type proves, and what the server does
//!
//! The type proves that a statement on a `Conn<Read>` was built by Diesel as a `SELECT` without a lock at its top, or
//! that its author vouched for it. A function or a fragment in the `SELECT` may still write. So every session of a read
//! pool is read-only at the server as well, also on the primary, and also after its node was promoted.
//!
//! PostgreSQL permits some functions with effects in a read-only transaction: large objects, `dblink`, `pg_notify`,
//! advisory locks, `pg_terminate_backend`. Only privileges stop those. [`ReadOnly`] has the list.
//!
//! # Features
//!
//! * `tls`: TLS towards the servers, with rustls
//! * `tower`: a layer that runs each request of a service in a session
//! * `migrate`: Diesel's migrations from inside the program, on the primary only
//! * `testkit`: real clusters with streaming replicas, faults, and sets that are rolled back, for tests
//! * `payments`, `service`: a payments service that demonstrates the crate
//!
//! # Guides
//!
//! [`guide`] has a page on the [types](guide::types), on [configuration](guide::configuration), on
//! [failures](guide::failover), on [deployment](guide::deployment), and more.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub use self::causal::Session;
#[doc(inline)]
pub use self::config::error::ConfigError;
#[doc(inline)]
pub use self::config::valid::Config;
pub use self::conn::{AsyncFunc, BorrowedConn, CancelHandle, Conn, RawAccess, TransactionBuilder};
pub use self::error::{
    CancelError, CausalError, CheckoutError, ConnectError, Error, InDoubt, InvalidChannel, ListenError,
    NodeFailure, OutcomeUnknown, ShownIdentifier, SqlState, TransactionFailed, is_safe_to_retry,
};
pub use self::intent::{Intent, IntentKind, Read, Writable, Write};
pub use self::lsn::{InvalidLsn, Lsn};
pub use self::options::{ReadOptions, WriteOptions};
pub use self::replica_set::{CommitOutcome, Reconfigured, ReplicaSet};
pub use self::run_query::{LoadQuery, RunExecuteDsl, RunQueryDsl, SaveChangesDsl};
pub use self::statement::{AssumeReadOnly, CombineDsl, Permits, ReadOnly, SetOperation, assume_read_only};
pub use self::token::{CausalToken, InvalidToken, InvalidTokenKey, TokenKey};
#[doc(inline)]
pub use self::topology::role::Role;

mod backoff;
mod causal;
pub mod config;
mod conn;
mod defect;
mod error;
// It holds documentation only, so a program that uses the crate is not compiled with it.
#[cfg(any(doc, doctest, test))]
pub mod guide;
mod intent;
mod limit;
mod lsn;
#[cfg(feature = "migrate")]
pub mod migrate;
mod options;
#[cfg(feature = "payments")]
pub mod payments;
mod pool;
mod replica_set;
mod run_query;
mod statement;
mod stats;
#[cfg(feature = "testkit")]
pub mod testkit;
mod timeout;
mod token;
pub mod topology;
mod wire;

/// The health of a set, as [`ReplicaSet::health`] reports it.
pub mod health {
    pub use crate::replica_set::{HealthReport, MemoryReport, NodeReport, Status};
}

/// Notifications of the primary, as [`ReplicaSet::listen`] yields them.
pub mod listen {
    pub use crate::replica_set::listen::{Gap, Interruption, ListenEvent, Listener, Notification};
}

/// A session for each request of a [tower](https://docs.rs/tower) service.
///
/// Services of axum and hyper are such services.
#[cfg(feature = "tower")]
pub mod tower {
    pub use crate::causal::layer::{
        CausalCookie, CausalFuture, CausalLayer, CausalService, InvalidCookieName, OnInvalidToken,
        RefusedToken,
    };
}

/// The imports that a file needs to run statements.
///
/// It is Diesel's prelude with Pointsman's traits instead of Diesel's, because two glob imports of traits of one name
/// are ambiguous in a confusing way.
///
/// ```
/// use pointsman::prelude::*;
///
/// diesel::table! { users (id) { id -> Integer, name -> Text, } }
///
/// async fn count(conn: &Conn<Read>) -> QueryResult<i64> {
///     users::table.count().get_result(conn).await
/// }
/// ```
pub mod prelude {
    pub use diesel::prelude::*;
    pub use diesel::result::QueryResult;

    pub use crate::{
        CombineDsl, Conn, Intent, Read, ReadOnly, RunExecuteDsl, RunQueryDsl, SaveChangesDsl, Writable, Write,
    };
}
