//! A set whose work is rolled back: one session, in a transaction that is never committed.
//!
//! A [`RollbackSet`] is a [`ReplicaSet`] that was built as any other. What differs is the server that it
//! connects to: a port of this process that speaks PostgreSQL's protocol, and gives all connections turns in one session.
//! So the pools, the types, the transactions and the errors are those of production.
//!
//! * `server`: the port, and the thread that serves it
//! * `login`: the first messages of a connection; a monitor goes through to the server itself
//! * `client`: one connection of the set, and its turns
//! * `translate`: a message of a connection, as the one session gets it
//! * `session`: the one session at the server, with its savepoints
//! * `lent`: the socket on which the driver logs in to it
//! * `settings`: what a connection is to be set to in its turn
//! * `statement`: what a statement does to transactions (pure)
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
/// Both intents are served from one session at the primary, inside a transaction that is never committed. So what one
/// checkout wrote is seen by the next, and by no other session. The set needs nothing of the database
/// but its tables, and tests that run in parallel on one database, each with a set of its own, see nothing of each other.
///
/// It dereferences to the set, so it is passed to code that takes a `&ReplicaSet`. Clones of the set are closed when
/// this is dropped, and so is the session: the drop waits until the server has rolled back.
///
/// # What is as in production
///
/// * A `Conn<Read>` is read-only at the server. A failed statement outside a transaction does no harm to later ones.
/// * Transactions of the application are savepoints: rolled back after an error, after a failed statement, and
///   when they are dropped half-way. Deferred constraints are checked when they are committed.
/// * Connections that do not belong to one transaction may be held side by side. Statements and transactions of different
///   connections are carried out one after the other, in the order in which they asked.
///
/// # What differs
///
/// * A statement waits while *another* connection is inside a transaction. If one task does both, it would wait for
///   itself: the statement fails with SQLSTATE 55P03 before `timeouts.checkout` is over.
/// * The isolation level and `DEFERRABLE` of a transaction have no effect: all is `READ COMMITTED`. `READ ONLY` has.
/// * `now()` is the same moment all the time, and so is the transaction's id. `clock_timestamp()` goes on.
/// * Sequences keep the values that they gave out. `NOTIFY` is delivered to no session.
/// * Settings (`SET`), temporary tables, advisory locks and cursors belong to the one session. `SET LOCAL` and
///   `set_config('name', …, true)` end with their transaction; a name that is a bound value does not.
/// * [`settle`](ReplicaSet::settle) cannot tell the outcome of a transaction.
/// * What cannot run in a transaction is refused: `VACUUM`, `CREATE INDEX CONCURRENTLY`, two-phase commits, procedures that commit.
/// * Locks are held until the set is dropped. Two sets that insert the same key wait for each other, and so do two that
///   create the same table: migrate the database before.
///
/// A set whose session was lost fails from then on, and never goes on in another transaction.
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
    /// Of the nodes of the configuration, the primary serves all. Everything else of it counts: limits, timeouts, retries.
    ///
    /// # Errors
    ///
    /// [`TestkitError`] if none of the nodes is a primary that lets a session begin, or if its URL asks for TLS.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves nothing behind.
    pub async fn connect(config: Config) -> Result<Self> {
        // Before the checkout is over, so that its error says what it waited for.
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

/// Refuses a node whose sessions cannot be looked into, or that is reached in a way that the set cannot be led off.
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
        // Clones of the set refuse at once, instead of looking for a primary that is not there any more.
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
