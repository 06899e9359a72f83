//! A set whose work is rolled back.
//!
//! It has one session, in a transaction that is never committed.
//!
//! A [`RollbackSet`] is a [`ReplicaSet`] built like any other, except for the server that it connects to. That server
//! is a port of this process which speaks PostgreSQL's protocol, and gives all connections turns in one session. So the
//! pools, the types, the transactions and the errors are those of production.
//!
//! * `server`: the port, and the thread that serves it
//! * `login`: the first messages of a connection; a monitor goes through to the server itself
//! * `client`: one connection of the set, and its turns
//! * `translate`: rewrites a connection's message for the one session
//! * `session`: the one session at the server, with its savepoints
//! * `lent`: the socket on which the driver logs in to it
//! * `settings`: the settings of a connection, for its turn
//! * `statement`: the effect of a statement on transactions (pure)
//! * `message`: the messages of the protocol

use std::ops::Deref;

use futures_util::FutureExt;
use tokio::runtime::Handle;

use self::server::Server;
use super::error::{Result, TestkitError};
use crate::config::{NodeConfig, TlsMode};
use crate::{Config, ReplicaSet};

mod client;
mod lent;
mod login;
mod message;
mod server;
mod session;
mod settings;
mod statement;
mod translate;

/// A [`ReplicaSet`] whose work is rolled back when it is dropped.
///
/// One session at the primary serves both intents, inside a transaction that is never committed. So each checkout sees
/// what an earlier one wrote, and no other session does. The set needs only the tables of the database. Parallel tests
/// on one database, each with a separate set, do not see each other's work.
///
/// It dereferences to the set, so it is passed to code that takes a `&ReplicaSet`. When it is dropped, clones of the
/// set are closed, and so is the session: the drop waits until the server has rolled back.
///
/// # What is as in production
///
/// * A `Conn<Read>` is read-only at the server. A failed statement outside a transaction does no harm to later ones.
/// * Transactions of the application are savepoints: rolled back after an error, after a failed statement, and
///   when they are dropped half-way. Deferred constraints are checked when they are committed.
/// * Connections that do not belong to one transaction may be held side by side. Statements and transactions of
///   different connections run one after the other, in the order of their requests.
///
/// # What differs
///
/// * A statement waits while *another* connection is inside a transaction. If one task does both, the statement would
///   wait for itself, so it fails with SQLSTATE 55P03 before `timeouts.checkout` is over.
/// * The isolation level and `DEFERRABLE` have no effect: every transaction is `READ COMMITTED`. `READ ONLY` has an
///   effect.
/// * `now()` and the transaction's id stay the same all the time. `clock_timestamp()` goes on.
/// * Sequences keep the values that they handed out. `NOTIFY` is delivered to no session.
/// * Settings (`SET`), temporary tables, advisory locks and cursors belong to the one session. `SET LOCAL` and
///   `set_config('name', …, true)` end with their transaction; a name that is a bound value does not.
/// * [`resolve`](ReplicaSet::resolve) cannot find the outcome of a transaction.
/// * Statements that cannot run in a transaction are refused: `VACUUM`, `CREATE INDEX CONCURRENTLY`, two-phase
///   commits, procedures that commit.
/// * Locks are held until the set is dropped. Two sets that insert the same key wait for each other, and so do two
///   that create the same table. Migrate the database before.
///
/// If the session is lost, the set fails from then on, and never continues in another transaction.
///
/// ```
/// use pointsman::prelude::*;
/// use pointsman::testkit::{Cluster, RollbackSet};
/// use pointsman::{Config, Error, ReplicaSet};
///
/// diesel::table! { trains (number) { number -> Integer, } }
///
/// /// The code under test.
/// async fn add(set: &ReplicaSet, number: i32) -> Result<i64, Error> {
///     set.run_write(async |tx| -> Result<_, Error> {
///         Ok(diesel::insert_into(trains::table).values(trains::number.eq(number)).execute(tx).await?)
///     })
///     .await?;
///     Ok(trains::table.count().get_result(&set.read().await?).await?)
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cluster = Cluster::builder().start().await?;
/// cluster.primary().execute("CREATE TABLE trains (number int PRIMARY KEY)").await?;
///
/// let config = Config::builder().primary(cluster.primary().url()).build()?;
/// let set = RollbackSet::connect(config).await?;
/// assert_eq!(add(&set, 12).await?, 1);
/// drop(set);
/// assert_eq!(cluster.primary().query_value("SELECT count(*) FROM trains").await?, "0");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct RollbackSet {
    set: ReplicaSet,
    _server: Server,
}

impl RollbackSet {
    /// Begins the transaction, and connects a set to it.
    ///
    /// The primary among the configured nodes serves everything. The rest of the configuration applies: limits,
    /// timeouts, retries.
    ///
    /// # Errors
    ///
    /// [`TestkitError`] if no node is a primary that lets a session begin, or if its URL asks for TLS.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves nothing behind.
    pub async fn connect(config: Config) -> Result<Self> {
        // Before the checkout times out, so that the error names the reason for the wait.
        let limit = config.timeouts().checkout.min(config.timeouts().connect) * 3 / 4;
        let mut last = None;
        for node in config.nodes() {
            let started = match check(node) {
                Ok(()) => Server::start(node, limit).await,
                Err(error) => Err(error),
            };
            match started {
                Ok(server) => {
                    let set = ReplicaSet::connect(config.with_only(node.behind(server.port))).await;
                    let set = set.map_err(|source| TestkitError::Set { source })?;
                    return Ok(Self { set, _server: server });
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("a configuration has a node"))
    }
}

/// Refuses a node whose sessions cannot be inspected or redirected.
fn check(node: &NodeConfig) -> Result<()> {
    let (is, remedy) = if node.tls().mode > TlsMode::Prefer {
        ("asks for TLS", "leave `sslmode` out of the URL, or write `sslmode=disable`")
    } else if !node.postgres().get_hostaddrs().is_empty() {
        ("has a `hostaddr`", "write the address as the host of the URL")
    } else {
        return Ok(());
    };
    Err(TestkitError::State { server: node.name().to_owned(), is, remedy })
}

impl Drop for RollbackSet {
    fn drop(&mut self) {
        // Clones of the set refuse at once, instead of searching for a primary that no longer exists.
        if Handle::try_current().is_ok() {
            let _ = self.set.close().now_or_never();
        }
    }
}

impl Deref for RollbackSet {
    type Target = ReplicaSet;

    fn deref(&self) -> &ReplicaSet {
        &self.set
    }
}
