//! Finds out if a transaction was committed whose COMMIT got no answer.

use std::time::Duration;

use diesel::QueryableByName;
use diesel::sql_types::{Nullable, Text};
use tokio::time::{Instant, sleep};

use self::lineage::{Known, knows};
use super::ReplicaSet;
use crate::conn::{Conn, WalPosition};
use crate::error::{CheckoutError, Error, InDoubt};
use crate::topology::Recovery;
use crate::topology::TopologyState;
use crate::{SqlState, Write};

mod lineage;

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
    let known = knows(in_doubt, &recoveries, &now);
    let sql =
        format!("SELECT pg_catalog.pg_xact_status('{}'::pg_catalog.xid8) AS status", in_doubt.transaction_id);
    let fate = diesel_async::RunQueryDsl::get_result::<Fate>(diesel::sql_query(sql), &mut &**conn).await;
    let status = match fate {
        Ok(fate) => fate.status,
        // The id was not assigned yet (22023, "in the future"): this primary never saw the transaction.
        Err(_) if conn.last_sqlstate() == Some(SqlState::new(*b"22023")) => {
            return Ok(Some(CommitOutcome::RolledBack));
        }
        Err(error) => return Err(error.into()),
    };
    Ok(match (status.as_deref(), known) {
        (Some("in progress"), Known::Yes) => None,
        // The id may belong to another transaction now; the one in question was not committed here.
        (Some("aborted"), _) | (_, Known::No) => Some(CommitOutcome::RolledBack),
        (Some("committed"), Known::Yes) => Some(CommitOutcome::Committed),
        _ => Some(CommitOutcome::Unknown),
    })
}

impl From<CheckoutError> for diesel::result::Error {
    /// Converts the error for functions that return Diesel's error.
    ///
    /// It keeps the message, and the fact that nothing was sent.
    fn from(error: CheckoutError) -> Self {
        Self::QueryBuilderError(Box::new(error))
    }
}
