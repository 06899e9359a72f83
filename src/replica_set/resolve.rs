//! Whether a transaction was carried out whose COMMIT got no answer.

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
    /// It was carried out, and the present primary has it.
    Committed,
    /// It was not carried out, or the primary that carried it out was replaced by one that had not received it.
    RolledBack,
    /// It cannot be told any more: too much happened since.
    Unknown,
}

#[derive(QueryableByName)]
struct Fate {
    #[diesel(sql_type = Nullable<Text>)]
    status: Option<String>,
}

/// How long to wait before a transaction that the server still works on is asked about again.
const PAUSE: Duration = Duration::from_millis(20);

impl ReplicaSet {
    /// Finds out, on the present primary, whether a transaction was carried out.
    ///
    /// The transaction comes with [`OutcomeUnknown`](crate::OutcomeUnknown), where the transaction was run with
    /// [`resolvable`](crate::WriteOptions::resolvable). It waits for a primary as [`write`](Self::write) does, and for a
    /// transaction that the server still works on as long as `writes.failover_wait`.
    ///
    /// # Errors
    ///
    /// [`Error::Checkout`] where there is no primary to ask, [`Error::Query`] where it does not answer.
    ///
    /// # Cancel safety
    ///
    /// It changes nothing, so a dropped future loses nothing.
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
                // The primary was lost meanwhile; the next one is asked.
                Err(_) if conn.is_closed() && Instant::now() < deadline => {}
                Ok(None) => {}
                Err(error) => return Err(error),
            }
            drop(conn);
            sleep(PAUSE).await;
        }
    }
}

/// Asks a primary; `None` while it still works on the transaction.
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
    // What happened before is forgotten, by an operator's word or because too much happened since.
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
        // An id that was not given out yet (22023, "in the future"): this primary never saw the transaction.
        Err(_) if conn.last_sqlstate() == Some(SqlState::new(*b"22023")) => {
            return Ok(Some(CommitOutcome::RolledBack));
        }
        Err(error) => return Err(error.into()),
    };
    Ok(match (status.as_deref(), known) {
        (Some("in progress"), Known::Yes) => None,
        // Whichever transaction has the id now: the one in question cannot have been carried out here.
        (Some("aborted"), _) | (_, Known::No) => Some(CommitOutcome::RolledBack),
        (Some("committed"), Known::Yes) => Some(CommitOutcome::Committed),
        _ => Some(CommitOutcome::Unknown),
    })
}

impl From<CheckoutError> for diesel::result::Error {
    /// For functions whose error is Diesel's: the message is kept, and so is the fact that nothing was sent.
    fn from(error: CheckoutError) -> Self {
        Self::QueryBuilderError(Box::new(error))
    }
}
