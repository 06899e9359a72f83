//! Whether a transaction was carried out whose COMMIT got no answer.

use std::time::Duration;

use diesel::QueryableByName;
use diesel::sql_types::{Nullable, Text};
use tokio::time::{Instant, sleep};

use self::lineage::{Known, knows};
use super::ReplicaSet;
use crate::conn::{Conn, Doubt, Standpoint};
use crate::error::{CheckoutError, Error};
use crate::health::Board;
use crate::topology::Recovery;
use crate::{SqlState, Write};

mod lineage;

/// The outcome of a transaction that was in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settlement {
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
    /// The doubt comes with [`OutcomeUnknown`](crate::OutcomeUnknown), where the transaction was run with
    /// [`settleable`](crate::WriteOptions::settleable). It waits for a primary as [`write`](Self::write) does, and for a
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
    /// use pointsman::Settlement;
    ///
    /// # async fn example(set: &ReplicaSet, unknown: OutcomeUnknown) -> Result<(), Error> {
    /// if let Some(doubt) = &unknown.doubt
    ///     && set.settle(doubt).await? == Settlement::RolledBack
    /// {
    ///     // Safe to run again.
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn settle(&self, doubt: &Doubt) -> Result<Settlement, Error> {
        let deadline = Instant::now() + self.config().writes().failover_wait;
        loop {
            let conn = self.write().await?;
            match ask(&conn, doubt, &self.inner.board).await {
                Ok(Some(settlement)) => return Ok(settlement),
                Ok(None) if Instant::now() >= deadline => return Ok(Settlement::Unknown),
                // The primary was lost meanwhile; the next one is asked.
                Err(_) if conn.is_lost() && Instant::now() < deadline => {}
                Ok(None) => {}
                Err(error) => return Err(error),
            }
            drop(conn);
            sleep(PAUSE).await;
        }
    }
}

/// Asks a primary; `None` while it still works on the transaction.
async fn ask(conn: &Conn<Write>, doubt: &Doubt, seen: &Board) -> Result<Option<Settlement>, Error> {
    let standpoint = Standpoint::of(conn).await?;
    if standpoint.system_identifier() != doubt.system_identifier {
        return Ok(Some(Settlement::Unknown));
    }
    let recoveries = seen.recoveries();
    // What happened before is forgotten, by an operator's word or because too much happened since.
    if !recoveries.is_complete_since(doubt.noted) {
        return Ok(Some(Settlement::Unknown));
    }
    let Some(node) = conn.served_by() else { return Ok(Some(Settlement::Unknown)) };
    let now = Recovery {
        node: node.config().server_key(),
        server: None,
        timeline: standpoint.timeline(),
        end: standpoint.recovered_to(),
        from: None,
        was_standby: false,
        at: Instant::now(),
    };
    let known = knows(doubt, &recoveries, &now);
    let sql =
        format!("SELECT pg_catalog.pg_xact_status('{}'::pg_catalog.xid8) AS status", doubt.transaction_id);
    let fate = diesel_async::RunQueryDsl::get_result::<Fate>(diesel::sql_query(sql), &mut &**conn).await;
    let status = match fate {
        Ok(fate) => fate.status,
        // An id that was not given out yet (22023, "in the future"): this primary never saw the transaction.
        Err(_) if conn.last_sqlstate() == Some(SqlState::new(*b"22023")) => {
            return Ok(Some(Settlement::RolledBack));
        }
        Err(error) => return Err(error.into()),
    };
    Ok(match (status.as_deref(), known) {
        (Some("in progress"), Known::Yes) => None,
        // Whichever transaction has the id now: the one in question cannot have been carried out here.
        (Some("aborted"), _) | (_, Known::No) => Some(Settlement::RolledBack),
        (Some("committed"), Known::Yes) => Some(Settlement::Committed),
        _ => Some(Settlement::Unknown),
    })
}

impl From<CheckoutError> for diesel::result::Error {
    /// For functions whose error is Diesel's: the message is kept, and so is the fact that nothing was sent.
    fn from(error: CheckoutError) -> Self {
        Self::QueryBuilderError(Box::new(error))
    }
}
