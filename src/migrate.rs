//! Migrations from inside the program, on the primary only.
//!
//! Programs that are started together all want to migrate. One of them does, under an advisory lock, while the others
//! wait and then find nothing left to do.
//!
//! The migrations and their records are those of Diesel (`diesel_migrations`, table `__diesel_schema_migrations`), so
//! `diesel migration run` and this module can take turns.
//!
//! **What is proven and what is not.** A `Conn<Write>` was checked out for the primary, and `run` asks the
//! server again under the lock. So no standby and no read-only server is migrated. If two servers both claim to be the
//! primary, only the replica set's own rules protect against it.
//!
//! * [`run`]: applies the pending migrations
//! * [`pending`]: lists them, and changes nothing
//! * [`MigrateError`]: the errors of both
//!
//! ```no_run
//! use pointsman::migrate::{self, MigrateError};
//! use pointsman::{Error, ReplicaSet};
//!
//! # #[cfg(feature = "payments")]
//! async fn migrate(set: &ReplicaSet) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//!     for name in migrate::run(set.write().await?, pointsman::payments::MIGRATIONS).await? {
//!         println!("applied {name}");
//!     }
//!     Ok(())
//! }
//! ```

use std::collections::HashSet;
use std::future::Future;
use std::time::Duration;

use diesel::migration::{MigrationSource, MigrationVersion};
use diesel::pg::Pg;
use diesel::prelude::QueryableByName;
use diesel::sql_types::{Bool, Text};

pub use self::error::MigrateError;
use self::session::Session;
use crate::{Conn, Intent, RunQueryDsl, Write, assume_read_only};

mod error;
mod session;

/// Time [`run`] waits while another program migrates.
///
/// Programs that start together wait for the longest migration of one of them. A longer migration is better applied by
/// hand than while all of them wait.
pub const LOCK_WAIT: Duration = Duration::from_secs(60);

/// Applies the pending migrations, and returns their names.
///
/// Each migration runs in a separate transaction. Only one program migrates at a time: the others wait up to
/// [`LOCK_WAIT`]. The connection is used up, because its session may keep prepared statements and settings. It runs on
/// every flavour of the Tokio runtime. The session's statement timeout does not apply to migrations.
///
/// # Errors
///
/// Returns a [`MigrateError`]. Migrations applied before the failed one stay applied. The failed one itself is undone,
/// unless it has `run_in_transaction = false`.
///
/// # Cancel safety
///
/// A future that is dropped while it waits has done nothing. Once migrations have begun, they go on to their end in the
/// background, because a half-finished one helps no caller.
pub async fn run<S>(conn: Conn<Write>, source: S) -> Result<Vec<String>, MigrateError>
where
    S: MigrationSource<Pg> + Send + 'static,
{
    run_within(conn, source, LOCK_WAIT).await
}

/// Runs as [`run`] does, with another limit on the wait for the lock.
///
/// # Errors
///
/// As [`run`].
///
/// # Cancel safety
///
/// As [`run`].
pub async fn run_within<S>(
    conn: Conn<Write>,
    source: S,
    lock_wait: Duration,
) -> Result<Vec<String>, MigrateError>
where
    S: MigrationSource<Pg> + Send + 'static,
{
    let session = Session::new(conn);
    session.lock(lock_wait).await?;
    session.check_primary().await?;
    // Diesel's migrations block, so they run on a thread outside the runtime.
    let applied = tokio::task::spawn_blocking(move || session.apply(&source));
    match applied.await {
        Ok(applied) => applied,
        Err(stopped) if stopped.is_panic() => std::panic::resume_unwind(stopped.into_panic()),
        Err(_) => Err(MigrateError::Interrupted),
    }
}

/// Returns the names of the pending migrations, in their order.
///
/// # Errors
///
/// [`MigrateError::Source`] if the migrations cannot be read, and [`MigrateError::Query`] if the database fails.
pub fn pending<I: Intent, S: MigrationSource<Pg>>(
    conn: &Conn<I>,
    source: S,
) -> impl Future<Output = Result<Vec<String>, MigrateError>> + Send {
    // A source need not be `Send`, so it is read before the future is made.
    let wanted = names(&source);
    let conn = conn.as_read();
    async move {
        let mut wanted = wanted?;
        let table =
            diesel::sql_query("SELECT to_regclass('__diesel_schema_migrations') IS NOT NULL AS answer");
        let table: Answer = assume_read_only(table).get_result(conn).await?;
        if table.answer {
            let applied = diesel::sql_query("SELECT version FROM __diesel_schema_migrations");
            let applied: Vec<Applied> = assume_read_only(applied).load(conn).await?;
            let applied: HashSet<_> = applied.into_iter().map(|applied| applied.version).collect();
            wanted.retain(|(version, _)| !applied.contains(version));
        }
        Ok(wanted.into_iter().map(|(_, name)| name).collect())
    }
}

/// Returns the versions and names of all migrations of a source, by version.
fn names(source: &impl MigrationSource<Pg>) -> Result<Vec<(String, String)>, MigrateError> {
    let migrations = source.migrations().map_err(MigrateError::Source)?;
    let name = |version: MigrationVersion<'_>, name: String| (version.to_string(), name);
    let mut names: Vec<_> =
        migrations.iter().map(|m| name(m.name().version(), m.name().to_string())).collect();
    names.sort_unstable();
    Ok(names)
}

/// A migration that was applied.
#[derive(QueryableByName)]
struct Applied {
    #[diesel(sql_type = Text)]
    version: String,
}

/// The answer to a question.
#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    answer: bool,
}

/// The server's report about itself.
#[derive(QueryableByName)]
struct NodeRole {
    #[diesel(sql_type = Bool)]
    in_recovery: bool,
    #[diesel(sql_type = Text)]
    read_only: String,
}
