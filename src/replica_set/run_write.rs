//! Runs a transaction again if the server asks for it, and only then.

use tokio::time::{Instant, sleep};

use super::ReplicaSet;
use crate::Write;
use crate::conn::{AsyncFunc, Conn};
use crate::error::CheckoutError;
use crate::lsn::SharedLog;
use crate::options::WriteOptions;

impl ReplicaSet {
    /// Runs a function in a transaction on the primary, again after a conflict.
    ///
    /// Serialization failures (40001) and deadlocks (40P01) end a transaction that had no effect and may succeed the
    /// next time. So the whole transaction runs again, after a jittered wait, up to `writes.retries` times. Nothing
    /// else is repeated, least of all a COMMIT without an answer.
    ///
    /// The function is cloned for each run. Its effects besides its statements should allow for being repeated.
    ///
    /// # Errors
    ///
    /// As [`Conn::transaction`], or [`CheckoutError`], converted into `E`, if no connection to write was available.
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
            let mut waits = config.writes().retry_backoff.delays();
            let mut runs = 0;
            let limit = options.within.map(|limit| Instant::now() + limit);
            loop {
                let mut conn = self.write_before(&options, limit, &log).await?;
                match conn.transaction_with(&options, function.clone()).await {
                    Err(error) if conn.conflicted() && runs < config.writes().retries => {
                        runs += 1;
                        let wait = waits.next().unwrap_or_else(|| config.writes().retry_backoff.max());
                        // The conflict explains more than the lack of time.
                        if limit.is_some_and(|limit| Instant::now() + wait >= limit) {
                            return Err(error);
                        }
                        tracing::debug!(sqlstate = ?conn.last_sqlstate(), runs, ?wait, "a transaction is run again");
                        // Other callers may use the connection during the wait.
                        drop(conn);
                        sleep(wait).await;
                    }
                    outcome => return outcome,
                }
            }
        }
    }
}
