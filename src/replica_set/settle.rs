//! Whether a transaction was carried out whose COMMIT got no answer.

use std::time::Duration;

use diesel::QueryableByName;
use diesel::sql_types::{Nullable, Text};
use tokio::time::{Instant, sleep};

use super::ReplicaSet;
use crate::conn::{Conn, Doubt, Standpoint};
use crate::error::{CheckoutError, Error};
use crate::health::Board;
use crate::topology::Takeover;
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
    let now =
        Takeover { timeline: standpoint.timeline(), end: standpoint.recovered_to(), at: Instant::now() };
    let known = knows(doubt, &seen.takeovers(), now);
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
    /// Too many recoveries lie in between, or one of them was not seen.
    Maybe,
}

/// Judges by every recovery that the set saw since, and the one that the present primary had.
///
/// A server keeps only its last recovery on record. The one before may have lost the transaction and given its id to
/// another one, so what the monitors saw counts as well. What they cannot have seen is a server that came back and
/// was lost again between two looks.
fn knows(doubt: &Doubt, seen: &[Takeover], now: Takeover) -> Known {
    let before = |recovery: &&Takeover| {
        recovery.at <= doubt.noted
            || (recovery.timeline, recovery.end) == (doubt.timeline, doubt.recovered_to)
    };
    let since: Vec<_> = seen.iter().chain([&now]).filter(|recovery| !before(recovery)).collect();
    // The timelines of a second promotion may part before those of the first.
    if since.iter().any(|recovery| recovery.timeline > doubt.timeline + 1) {
        return Known::Maybe;
    }
    if since.iter().any(|recovery| recovery.end.is_some_and(|end| end < doubt.position)) {
        return Known::No;
    }
    let promotion_seen =
        || since.iter().any(|recovery| recovery.timeline == now.timeline && recovery.end.is_some());
    if now.timeline == doubt.timeline || promotion_seen() { Known::Yes } else { Known::Maybe }
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

    use crate::causal::Lsn;

    fn doubt(timeline: u32, position: u64, recovered_to: Option<u64>) -> Doubt {
        Doubt {
            system_identifier: 7,
            timeline,
            transaction_id: 100,
            position: Lsn::new(position),
            recovered_to: recovered_to.map(Lsn::new),
            noted: Instant::now(),
        }
    }

    /// What is known after the recoveries that are given, the last of which is the present primary's.
    fn after(doubt: &Doubt, recoveries: &[(u32, Option<u64>)]) -> Known {
        let recovery = |(i, (timeline, end)): (usize, &(u32, Option<u64>))| Takeover {
            timeline: *timeline,
            end: end.map(Lsn::new),
            at: doubt.noted + Duration::from_secs(1 + i as u64),
        };
        let seen: Vec<_> = recoveries.iter().enumerate().map(recovery).collect();
        let now = *seen.last().expect("there is a primary");
        knows(doubt, &seen, now)
    }

    #[test]
    fn a_server_that_never_recovered_since_knows_the_transaction() {
        assert_eq!(after(&doubt(1, 500, None), &[(1, None)]), Known::Yes);
        // It was promoted at 200, long before the transaction.
        assert_eq!(after(&doubt(2, 500, Some(200)), &[(2, Some(200))]), Known::Yes);
        // ... and restarted in between.
        assert_eq!(after(&doubt(2, 500, Some(200)), &[(2, Some(200)), (2, None)]), Known::Yes);
    }

    #[test]
    fn a_promoted_standby_knows_what_it_had_received() {
        assert_eq!(after(&doubt(1, 500, None), &[(1, None), (2, Some(500))]), Known::Yes);
        assert_eq!(after(&doubt(1, 500, None), &[(1, None), (2, Some(499))]), Known::No);
        // ... also after a clean restart, if it was seen before.
        assert_eq!(after(&doubt(1, 500, None), &[(2, Some(500)), (2, None)]), Known::Yes);
        assert_eq!(after(&doubt(1, 500, None), &[(2, None)]), Known::Maybe);
    }

    #[test]
    fn a_crash_may_have_lost_the_end_of_the_log() {
        assert_eq!(after(&doubt(1, 500, None), &[(1, Some(300))]), Known::No);
        assert_eq!(after(&doubt(1, 500, None), &[(1, Some(600))]), Known::Yes);
    }

    /// Only the last recovery was looked at, so a transaction that was lost before was taken for the one that
    /// got its id afterwards.
    #[test]
    fn what_one_recovery_lost_no_later_one_brings_back() {
        for later in [(1, None), (1, Some(700)), (2, Some(700))] {
            assert_eq!(after(&doubt(1, 500, None), &[(1, Some(400)), later]), Known::No, "{later:?}");
        }
        assert_eq!(after(&doubt(1, 500, None), &[(2, Some(400)), (2, Some(700))]), Known::No);
    }

    #[test]
    fn recoveries_of_before_do_not_count() {
        let at = Instant::now();
        let crashed = Takeover { timeline: 1, end: Some(Lsn::new(400)), at };
        let restarted = Takeover { end: None, ..crashed };
        let mut doubt = doubt(1, 500, None);
        doubt.noted = at + Duration::from_secs(1);
        assert_eq!(knows(&doubt, &[crashed, restarted], restarted), Known::Yes);
    }

    #[test]
    fn after_two_promotions_nobody_can_tell() {
        assert_eq!(after(&doubt(1, 500, None), &[(2, Some(800)), (3, Some(900))]), Known::Maybe);
    }
}
