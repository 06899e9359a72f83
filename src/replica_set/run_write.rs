//! Runs a transaction, again after a run that had no effect.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::ReplicaSet;
use super::rerun::{Cause, Decision, Reruns, decide};
use super::resolve::Resolved;
use crate::conn::{AsyncFunc, Conn, Doubt, RunSigns};
use crate::defect::Defect;
use crate::error::{CheckoutError, InDoubt, OutcomeUnknown};
use crate::lsn::{PositionLog, SharedLog};
use crate::options::WriteOptions;
use crate::topology::Known;
use crate::{SqlState, Write};

/// Pause after a transaction found its primary read only.
const PAUSE: Duration = Duration::from_millis(5);

impl ReplicaSet {
    /// Runs a function in a transaction on the primary, again if a run had no effect.
    ///
    /// The whole transaction runs again after
    ///
    /// * a serialization failure (40001) or a deadlock (40P01), up to `writes.retries` times, after a jittered wait;
    /// * the loss of its connection *before the COMMIT was sent*, on the primary that there is then. The wait for a
    ///   primary and all these runs have one deadline, `writes.failover_wait` after the first loss, or
    ///   [`within`](WriteOptions::within). A transaction that lost three sessions in the middle of a statement is
    ///   suspected of ending them, and is not run again;
    /// * 25006 (read-only transaction), if the next probe shows that the node is no primary any more.
    ///
    /// Nothing else is repeated: no error of the function itself, also if the connection ends unnoticed meanwhile. A
    /// COMMIT without an answer is [`OutcomeUnknown`](crate::OutcomeUnknown), unless the options ask for
    /// [`exactly_once`](WriteOptions::exactly_once).
    ///
    /// The function is cloned for each run. Its effects besides its statements should allow for being repeated.
    ///
    /// # Errors
    ///
    /// As [`Conn::transaction`], or [`CheckoutError`], converted into `E`, if no connection to write was available. If
    /// no run succeeds before the deadline, the error is that of the last run.
    ///
    /// # Cancel safety
    ///
    /// As [`Conn::transaction`].
    ///
    /// ```no_run
    /// use pointsman::prelude::*;
    /// use pointsman::{Error, ReplicaSet};
    ///
    /// diesel::table! { accounts (id) { id -> Integer, balance -> BigInt, } }
    ///
    /// async fn deposit(set: &ReplicaSet, id: i32, amount: i64) -> Result<i64, Error> {
    ///     set.run_write(async |tx| {
    ///         let balance = diesel::update(accounts::table.find(id))
    ///             .set(accounts::balance.eq(accounts::balance + amount))
    ///             .returning(accounts::balance)
    ///             .get_result(tx)
    ///             .await?;
    ///         Ok(balance)
    ///     })
    ///     .await
    /// }
    /// ```
    pub fn run_write<'a, 'set, R, E, F>(
        &'set self,
        function: F,
    ) -> impl Future<Output = Result<R, E>> + Send + 'set
    where
        for<'r> F: AsyncFnOnce(&'r mut Conn<Write>) -> Result<R, E>
            + AsyncFunc<&'r mut Conn<Write>, Result<R, E>, Fut: Send>
            + Clone
            + Send
            + 'a,
        E: From<CheckoutError> + From<diesel::result::Error> + Send + 'a,
        R: Send + 'a,
        'a: 'set,
    {
        self.run_write_with(&WriteOptions::new(), function)
    }

    /// Runs a function in a transaction on the primary, with options for this call.
    ///
    /// # Errors
    ///
    /// As [`run_write`](Self::run_write).
    ///
    /// # Cancel safety
    ///
    /// As [`Conn::transaction`].
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use pointsman::prelude::*;
    /// use pointsman::{Error, ReplicaSet, WriteOptions};
    ///
    /// diesel::table! { visits (id) { id -> Integer, } }
    ///
    /// async fn visit(set: &ReplicaSet) -> Result<usize, Error> {
    ///     let options = WriteOptions::new().serializable().within(Duration::from_secs(1));
    ///     set.run_write_with(&options, async |tx| {
    ///         Ok(diesel::insert_into(visits::table).default_values().execute(tx).await?)
    ///     })
    ///     .await
    /// }
    /// ```
    // The future keeps no reference to the options, so the caller can build them in the call, also inside `join!`.
    pub fn run_write_with<'a, 'set, R, E, F>(
        &'set self,
        options: &WriteOptions,
        function: F,
    ) -> impl Future<Output = Result<R, E>> + Send + 'set + use<'a, 'set, R, E, F>
    where
        for<'r> F: AsyncFnOnce(&'r mut Conn<Write>) -> Result<R, E>
            + AsyncFunc<&'r mut Conn<Write>, Result<R, E>, Fut: Send>
            + Clone
            + Send
            + 'a,
        E: From<CheckoutError> + From<diesel::result::Error> + Send + 'a,
        R: Send + 'a,
        'a: 'set,
    {
        self.run_write_recorded(options, SharedLog::none(), function)
    }

    /// As [`run_write_with`](Self::run_write_with); records the COMMIT's position.
    pub(crate) fn run_write_recorded<'a, 'set, R, E, F>(
        &'set self,
        options: &WriteOptions,
        log: SharedLog,
        function: F,
    ) -> impl Future<Output = Result<R, E>> + Send + 'set + use<'a, 'set, R, E, F>
    where
        for<'r> F: AsyncFnOnce(&'r mut Conn<Write>) -> Result<R, E>
            + AsyncFunc<&'r mut Conn<Write>, Result<R, E>, Fut: Send>
            + Clone
            + Send
            + 'a,
        E: From<CheckoutError> + From<diesel::result::Error> + Send + 'a,
        R: Send + 'a,
        'a: 'set,
    {
        let options = *options;
        async move {
            let config = self.config();
            let writes = config.writes();
            let limit = options.within.map(|limit| Instant::now() + limit);
            let mut reruns = Reruns::new(writes.retries, &writes.retry_backoff, limit, writes.failover_wait);
            // The error of the last run, if its connection was lost.
            let mut lost = None;
            loop {
                let mut conn = match self.write_before(&options, reruns.limit(), &log).await {
                    Ok(conn) => conn,
                    Err(error) => return Err(lost.unwrap_or_else(|| error.into())),
                };
                let recorded = self.record_apart(&conn, &options, &log);
                let opened = conn.wire().created();
                let ran = conn.transaction_with(&options, function.clone()).await;
                let demoted = ran.outcome.is_err() && self.was_demoted(&conn).await;
                let not_noted = Doubt::NotNoted;
                let doubt = ran.unanswered.as_ref().map_or(&not_noted, |(_, doubt)| doubt);
                let cause = match decide(&ran.signs, demoted, options.exactly_once, doubt) {
                    Decision::Return | Decision::Resolve
                        if Defect::RepeatedCommit.is_seeded() && ran.unanswered.is_some() =>
                    {
                        Cause::Lost
                    }
                    Decision::Return => {
                        recorded.keep();
                        return ran.outcome;
                    }
                    Decision::Again(cause) => cause,
                    Decision::Resolve => {
                        let Some((value, Doubt::Noted(in_doubt))) = ran.unanswered else {
                            return ran.outcome;
                        };
                        // Other callers may use the connection, and a session that ended frees its place.
                        drop(conn);
                        let deadline = reruns.deadline(Instant::now());
                        match self.resolve_before(&in_doubt, &options, deadline, &log).await {
                            Resolved::Committed => return Ok(value),
                            Resolved::RolledBack => {}
                            Resolved::CommittedLocally => {
                                recorded.keep();
                                return Err(committed_locally(in_doubt, &ran.signs).into());
                            }
                            Resolved::Unknown => {
                                recorded.keep();
                                return ran.outcome;
                            }
                        }
                        match decide(&ran.signs, false, true, &Doubt::Nothing) {
                            Decision::Again(cause) => cause,
                            Decision::Return | Decision::Resolve => Cause::Lost,
                        }
                    }
                };
                let cause = reruns.judge(cause, opened);
                let Some(wait) = reruns.pause(cause, Instant::now()) else { return ran.outcome };
                tracing::debug!(sqlstate = ?ran.signs.sqlstate, ?cause, ?wait, "a transaction is run again");
                lost = ran.outcome.err().filter(|_| cause != Cause::Conflict);
                sleep(wait).await;
            }
        }
    }

    /// Returns `true` if a transaction failed because its node is no primary any more.
    ///
    /// The server's 25006 alone proves nothing, because the caller may have asked for a read-only transaction. So this
    /// waits for the node's next probe.
    async fn was_demoted(&self, conn: &Conn<Write>) -> bool {
        if conn.last_sqlstate() != Some(SqlState::READ_ONLY_SQL_TRANSACTION) || conn.is_closed() {
            return false;
        }
        let Some(node) = conn.served_by().filter(|_| !conn.wire().is_standby()) else { return true };
        let began = Instant::now();
        let deadline = began + self.config().probe().timeout;
        node.stats().suspect();
        while Instant::now() < deadline {
            let snapshot = self.snapshot();
            let is_primary =
                snapshot.primary.is_some_and(|primary| snapshot.nodes[primary].node.id() == node.id());
            if !is_primary || snapshot.was_observed_since(began, Known::Ahead) {
                return !is_primary;
            }
            sleep(PAUSE).await;
        }
        false
    }

    /// Records the positions of a run that may have to be resolved.
    ///
    /// A COMMIT without an answer leaves a gap in the session. Once the COMMIT is resolved, there is none.
    fn record_apart(&self, conn: &Conn<Write>, options: &WriteOptions, log: &SharedLog) -> Recorded {
        let session = log.0.as_ref().filter(|_| options.exactly_once);
        Recorded(session.map(|session| {
            let run = Arc::new(PositionLog::default());
            conn.track(&run, self.snapshot().ancestry.timeline());
            (run, Arc::clone(session))
        }))
    }
}

/// Returns the error of a commit that a failover may lose.
fn committed_locally(in_doubt: InDoubt, signs: &RunSigns) -> diesel::result::Error {
    let (node, in_doubt) = (None, Some(in_doubt));
    OutcomeUnknown { node, sqlstate: signs.sqlstate, in_doubt, committed_locally: true }.into()
}

/// The positions of one run, and the session that gets them.
struct Recorded(Option<(Arc<PositionLog>, Arc<PositionLog>)>);

impl Recorded {
    /// Lets the session have a gap as well, if the run left one.
    fn keep(self) {
        if let Some((run, session)) = &self.0
            && let Some(timeline) = run.gap()
        {
            session.note_gap(timeline);
        }
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if let Some((run, session)) = &self.0 {
            session.absorb(run);
            if run.is_refused() {
                session.refuse();
            }
        }
    }
}
