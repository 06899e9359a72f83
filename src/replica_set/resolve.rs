//! Finds out if a transaction was committed whose COMMIT got no answer.

use std::time::Duration;

use diesel::QueryableByName;
use diesel::sql_types::{Nullable, Text};
use tokio::time::{Instant, sleep, timeout_at};

use self::lineage::{Known, knows};
use super::ReplicaSet;
use crate::conn::{Conn, WalPosition};
use crate::defect::Defect;
use crate::error::{CheckoutError, Error, InDoubt};
use crate::lsn::SharedLog;
use crate::options::WriteOptions;
use crate::run_query::RunExecuteDsl;
use crate::topology::Recovery;
use crate::topology::TopologyState;
use crate::{SqlState, Write};

mod lineage;
#[cfg(test)]
mod model;

/// The outcome of a transaction that was in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommitOutcome {
    /// The transaction was committed, and the present primary has it.
    Committed,
    /// The transaction was not committed, or the new primary never received it.
    RolledBack,
    /// The outcome can no longer be determined, because too much happened since.
    Unknown,
}

#[derive(QueryableByName)]
struct Fate {
    #[diesel(sql_type = Nullable<Text>)]
    status: Option<String>,
}

/// Time before a transaction that the server still runs is asked about again.
const PAUSE: Duration = Duration::from_millis(20);

impl ReplicaSet {
    /// Finds out, on the present primary, if a transaction was committed.
    ///
    /// [`OutcomeUnknown`](crate::OutcomeUnknown) carries the transaction if it ran with
    /// [`resolvable`](crate::WriteOptions::resolvable). This waits for a primary as [`write`](Self::write) does. It
    /// waits up to `writes.failover_wait` for a transaction that the server still runs.
    ///
    /// # Errors
    ///
    /// [`Error::Checkout`] if there is no primary to ask, [`Error::Query`] if the primary does not answer.
    ///
    /// # Cancel safety
    ///
    /// This call changes nothing, so a dropped future loses nothing.
    ///
    /// ```no_run
    /// # use pointsman::{Error, OutcomeUnknown, ReplicaSet};
    /// use pointsman::CommitOutcome;
    ///
    /// # async fn example(set: &ReplicaSet, unknown: OutcomeUnknown) -> Result<(), Error> {
    /// if let Some(in_doubt) = &unknown.in_doubt
    ///     && set.resolve(in_doubt).await? == CommitOutcome::RolledBack
    /// {
    ///     // Safe to run again.
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn resolve(&self, in_doubt: &InDoubt) -> Result<CommitOutcome, Error> {
        let deadline = Instant::now() + self.config().writes().failover_wait;
        loop {
            let conn = self.write().await?;
            match ask(&conn, in_doubt, &self.inner.topology).await {
                Ok(Some(outcome)) => return Ok(outcome),
                Ok(None) if Instant::now() >= deadline => return Ok(CommitOutcome::Unknown),
                // The primary went down in the meantime, so ask the next one.
                Err(_) if conn.is_closed() && Instant::now() < deadline => {}
                Ok(None) => {}
                Err(error) => return Err(error),
            }
            drop(conn);
            sleep(PAUSE).await;
        }
    }
}

/// The outcome of a transaction in doubt, for the caller that waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolved {
    /// It was committed, and the present primary has waited for its synchronous standbys.
    Committed,
    /// It was committed, and the wait for the synchronous standbys did not end before the deadline, or was cut short.
    CommittedLocally,
    /// It had no effect.
    RolledBack,
    /// It cannot be determined, or not before the deadline.
    Unknown,
}

/// Writes to the log, so that the commit waits for the synchronous standbys, and they then have all that is before it.
const BARRIER: &str = "SELECT pg_catalog.pg_logical_emit_message(true, 'pointsman', '')";

impl ReplicaSet {
    /// Finds out if a transaction was committed, and waits until its commit is as safe as an acknowledged one.
    ///
    /// A crash, or the end of the session, may have cut the wait for the synchronous standby short. The position is
    /// recorded in the log, if there is one.
    pub(super) async fn resolve_before(
        &self,
        in_doubt: &InDoubt,
        options: &WriteOptions,
        deadline: Instant,
        log: &SharedLog,
    ) -> Resolved {
        loop {
            let Ok(conn) = self.write_before(options, Some(deadline), &SharedLog::none()).await else {
                return Resolved::Unknown;
            };
            match ask(&conn, in_doubt, &self.inner.topology).await {
                Ok(Some(CommitOutcome::Committed)) => {
                    if let Some(log) = &log.0 {
                        conn.track(log, self.snapshot().ancestry.timeline());
                    }
                    let barrier = RunExecuteDsl::execute(diesel::sql_query(BARRIER), &conn);
                    match timeout_at(deadline, barrier).await {
                        Ok(Ok(_)) => return Resolved::Committed,
                        Ok(Err(_)) if conn.is_closed() => {}
                        Ok(Err(_)) | Err(_) => return Resolved::CommittedLocally,
                    }
                }
                Ok(Some(CommitOutcome::RolledBack)) => return Resolved::RolledBack,
                Ok(Some(CommitOutcome::Unknown)) => return Resolved::Unknown,
                Ok(None) => {}
                // The primary went down in the meantime, so ask the next one.
                Err(_) if conn.is_closed() => {}
                Err(_) => return Resolved::Unknown,
            }
            drop(conn);
            if Instant::now() + PAUSE >= deadline {
                return Resolved::Unknown;
            }
            sleep(PAUSE).await;
        }
    }
}

/// Asks a primary; `None` while the server still runs the transaction.
async fn ask(
    conn: &Conn<Write>,
    in_doubt: &InDoubt,
    seen: &TopologyState,
) -> Result<Option<CommitOutcome>, Error> {
    let position = WalPosition::of(conn).await?;
    if position.system_identifier() != in_doubt.system_identifier {
        return Ok(Some(CommitOutcome::Unknown));
    }
    let recoveries = seen.recoveries();
    // Earlier history was discarded, by an operator or because too much happened since.
    if !recoveries.is_complete_since(in_doubt.noted) {
        return Ok(Some(CommitOutcome::Unknown));
    }
    let Some(node) = conn.served_by() else { return Ok(Some(CommitOutcome::Unknown)) };
    let now = Recovery {
        node: node.config().server_key(),
        server: None,
        timeline: position.timeline(),
        end: position.recovered_to(),
        from: None,
        was_standby: false,
        at: Instant::now(),
    };
    let known =
        if Defect::ResolvedByIdAlone.is_seeded() { Known::Yes } else { knows(in_doubt, &recoveries, &now) };
    let sql =
        format!("SELECT pg_catalog.pg_xact_status('{}'::pg_catalog.xid8) AS status", in_doubt.transaction_id);
    let fate = diesel_async::RunQueryDsl::get_result::<Fate>(diesel::sql_query(sql), &mut &**conn).await;
    let status = match fate {
        Ok(fate) => Status::parse(fate.status.as_deref()),
        // "In the future".
        Err(_) if conn.last_sqlstate() == Some(SqlState::new(*b"22023")) => Status::Future,
        Err(error) => return Err(error.into()),
    };
    Ok(conclude(status, known))
}

/// The status of a transaction's id at a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    InProgress,
    Committed,
    Aborted,
    /// The id was not assigned yet.
    Future,
    /// The server has no record of it any more.
    Forgotten,
}

impl Status {
    fn parse(text: Option<&str>) -> Self {
        match text {
            Some("in progress") => Self::InProgress,
            Some("committed") => Self::Committed,
            Some("aborted") => Self::Aborted,
            Some(_) | None => Self::Forgotten,
        }
    }
}

/// Concludes from the status of an id; `None` while the server still runs the transaction.
fn conclude(status: Status, known: Known) -> Option<CommitOutcome> {
    match (status, known) {
        (Status::InProgress, Known::Yes) => None,
        // This primary never saw the transaction. Or the id may belong to another transaction by now: the one in question
        // was not committed here.
        (Status::Future | Status::Aborted, _) | (_, Known::No) => Some(CommitOutcome::RolledBack),
        (Status::Committed, Known::Yes) => Some(CommitOutcome::Committed),
        _ => Some(CommitOutcome::Unknown),
    }
}

impl From<CheckoutError> for diesel::result::Error {
    /// Converts the error for functions that return Diesel's error.
    ///
    /// It keeps the message, and the fact that nothing was sent.
    fn from(error: CheckoutError) -> Self {
        Self::QueryBuilderError(Box::new(error))
    }
}
