//! The session that migrates.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use diesel::migration::MigrationSource;
use diesel::pg::Pg;
use diesel_async::AsyncPgConnection;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_migrations::MigrationHarness;
use tokio::time::{Instant, sleep};

use super::{Answer, MigrateError, NodeRole};
use crate::{Conn, RunExecuteDsl, RunQueryDsl, Write};

/// The key of the advisory lock: `pointsmn` in ASCII.
///
/// Each database has separate locks.
const LOCK_KEY: i64 = i64::from_be_bytes(*b"pointsmn");

/// Time between two attempts to take the lock.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);

/// A connection that is used for nothing else, and ends with its use.
///
/// The advisory lock belongs to the session, so it can span several transactions. It ends with the connection, whatever
/// the cause.
pub(super) struct Session {
    conn: Conn<Write>,
}

impl Session {
    pub(super) fn new(conn: Conn<Write>) -> Self {
        Self { conn }
    }

    fn node(&self) -> String {
        self.conn.node().to_owned()
    }

    /// Takes the lock.
    ///
    /// It polls instead of waiting at the server, because a session that waits there has a snapshot. A `CREATE INDEX
    /// CONCURRENTLY` in another program's migration would wait for that snapshot in turn.
    pub(super) async fn lock(&self, wait: Duration) -> Result<(), MigrateError> {
        let deadline = Instant::now() + wait;
        loop {
            let lock = format!("SELECT pg_catalog.pg_try_advisory_lock({LOCK_KEY}) AS answer");
            let lock: Answer = diesel::sql_query(lock).get_result(&self.conn).await?;
            if lock.answer {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(MigrateError::Locked { node: self.node(), waited: wait, key: LOCK_KEY });
            }
            sleep(LOCK_INTERVAL).await;
        }
    }

    /// Checks that the server is a writable primary, and lifts the statement timeout.
    pub(super) async fn check_primary(&self) -> Result<(), MigrateError> {
        let role = "SELECT pg_catalog.pg_is_in_recovery() AS in_recovery, \
                        pg_catalog.current_setting('transaction_read_only') AS read_only";
        let role: NodeRole = diesel::sql_query(role).get_result(&self.conn).await?;
        if role.in_recovery {
            return Err(MigrateError::NotPrimary { node: self.node() });
        }
        if role.read_only != "off" {
            return Err(MigrateError::ReadOnly { node: self.node() });
        }
        // The timeout guards against statements that hang while a user waits; a migration may well take minutes.
        diesel::sql_query("SET statement_timeout = 0").execute(&self.conn).await?;
        Ok(())
    }

    /// Applies the pending migrations. It blocks the thread.
    pub(super) fn apply(self, source: &impl MigrationSource<Pg>) -> Result<Vec<String>, MigrateError> {
        let migrations = source.migrations().map_err(MigrateError::Source)?;
        let node = self.node();
        let mut harness = AsyncConnectionWrapper::<Self>::from(self);
        let recorded = harness.applied_migrations().map_err(MigrateError::Record)?;
        let mut pending: Vec<_> =
            migrations.into_iter().filter(|m| !recorded.contains(&m.name().version())).collect();
        pending.sort_unstable_by(|a, b| a.name().version().cmp(&b.name().version()));
        let mut applied = Vec::with_capacity(pending.len());
        for migration in &pending {
            let name = migration.name().to_string();
            if let Err(source) = harness.run_migration(migration) {
                return Err(MigrateError::Migration { name, applied, source });
            }
            tracing::info!(node, migration = name, "applied a migration");
            applied.push(name);
        }
        Ok(applied)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.conn.retire();
    }
}

// Diesel's harness takes any type that dereferences to a connection.
impl Deref for Session {
    type Target = AsyncPgConnection;

    fn deref(&self) -> &AsyncPgConnection {
        &self.conn
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut AsyncPgConnection {
        &mut self.conn
    }
}
