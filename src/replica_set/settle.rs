//! Whether a transaction was carried out whose COMMIT got no answer.

use std::time::Duration;

use diesel::QueryableByName;
use diesel::sql_types::{Nullable, Text};
use tokio::time::{Instant, sleep};

use super::ReplicaSet;
use crate::causal::Lsn;
use crate::conn::{Conn, Doubt, Standpoint};
use crate::error::{CheckoutError, Error};
use crate::{SqlState, Write};

/// What became of a transaction.
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
            match ask(&conn, doubt).await {
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
async fn ask(conn: &Conn<Write>, doubt: &Doubt) -> Result<Option<Settlement>, Error> {
    let standpoint = Standpoint::of(conn).await?;
    if standpoint.system_identifier() != doubt.system_identifier {
        return Ok(Some(Settlement::Unknown));
    }
    let known = knows(doubt, standpoint.timeline(), standpoint.recovered_to());
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

/// Whether a server knows a transaction by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Yes,
    /// It lost the end of the log with the transaction in it; the id may be another's by now.
    No,
    /// It recovered more than once since, and only the last time is on record.
    Maybe,
}

fn knows(doubt: &Doubt, timeline: u32, recovered_to: Option<Lsn>) -> Known {
    if (timeline, recovered_to) == (doubt.timeline, doubt.recovered_to) {
        return Known::Yes;
    }
    match recovered_to {
        // A clean restart forgets up to where a server had once recovered, and loses nothing.
        None if timeline == doubt.timeline => Known::Yes,
        Some(end) if timeline <= doubt.timeline + 1 => {
            if end >= doubt.position {
                Known::Yes
            } else {
                Known::No
            }
        }
        _ => Known::Maybe,
    }
}

impl From<CheckoutError> for diesel::result::Error {
    /// For functions whose error is Diesel's: the message is kept, and so is the fact that nothing was sent.
    fn from(error: CheckoutError) -> Self {
        Self::QueryBuilderError(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubt(timeline: u32, position: u64, recovered_to: Option<u64>) -> Doubt {
        Doubt {
            system_identifier: 7,
            timeline,
            transaction_id: 100,
            position: Lsn::new(position),
            recovered_to: recovered_to.map(Lsn::new),
        }
    }

    #[test]
    fn a_server_that_never_recovered_since_knows_the_transaction() {
        assert_eq!(knows(&doubt(1, 500, None), 1, None), Known::Yes);
        // It was promoted at 200, long before the transaction.
        assert_eq!(knows(&doubt(2, 500, Some(200)), 2, Some(Lsn::new(200))), Known::Yes);
        // ... and restarted in between.
        assert_eq!(knows(&doubt(2, 500, Some(200)), 2, None), Known::Yes);
    }

    #[test]
    fn a_promoted_standby_knows_what_it_had_received() {
        assert_eq!(knows(&doubt(1, 500, None), 2, Some(Lsn::new(500))), Known::Yes);
        assert_eq!(knows(&doubt(1, 500, None), 2, Some(Lsn::new(499))), Known::No);
    }

    #[test]
    fn a_crash_may_have_lost_the_end_of_the_log() {
        assert_eq!(knows(&doubt(1, 500, None), 1, Some(Lsn::new(300))), Known::No);
        assert_eq!(knows(&doubt(1, 500, None), 1, Some(Lsn::new(600))), Known::Yes);
    }

    #[test]
    fn after_two_promotions_nobody_can_tell() {
        assert_eq!(knows(&doubt(1, 500, None), 3, Some(Lsn::new(900))), Known::Maybe);
        assert_eq!(knows(&doubt(1, 500, None), 2, None), Known::Maybe);
    }
}
