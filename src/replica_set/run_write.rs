//! A transaction that is run again when the server asks for it, and only then.

use tokio::time::sleep;

use super::ReplicaSet;
use crate::Write;
use crate::conn::{AsyncFunc, Conn};
use crate::error::CheckoutError;

/// How [`ReplicaSet::run_write_with`] runs a transaction.
///
/// ```
/// use pointsman::WriteOptions;
/// let options = WriteOptions::new().serializable().settleable();
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[must_use = "options do nothing until `run_write_with`"]
pub struct WriteOptions {
    pub(crate) isolation: Option<&'static str>,
    pub(crate) settleable: bool,
}

impl WriteOptions {
    /// PostgreSQL's default isolation; an unknown outcome cannot be settled.
    pub fn new() -> Self {
        Self::default()
    }

    /// All statements see what was committed before the first of them.
    pub fn repeatable_read(mut self) -> Self {
        self.isolation = Some("REPEATABLE READ");
        self
    }

    /// The transaction behaves as if it ran alone, or is run again.
    pub fn serializable(mut self) -> Self {
        self.isolation = Some("SERIALIZABLE");
        self
    }

    /// Notes the transaction's id before the COMMIT, for one more round trip, so that [`ReplicaSet::settle`]
    /// can find out whether it was carried out if the answer never comes.
    pub fn settleable(mut self) -> Self {
        self.settleable = true;
        self
    }
}

impl ReplicaSet {
    /// Runs a function in a transaction on the primary, again if it conflicts with others.
    ///
    /// Serialization failures (40001) and deadlocks (40P01) end a transaction that had no effect and
    /// may succeed the next time, so the whole of it is run again, after a jittered wait, up to
    /// `writes.retries` times. Nothing else is repeated: least of all a COMMIT without an answer.
    ///
    /// The function is cloned for each run; what it does besides its statements should bear being repeated.
    ///
    /// # Errors
    ///
    /// As [`Conn::transaction`]; [`CheckoutError`], made into `E`, where there was no connection to write.
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
        self.run_write_with(WriteOptions::new(), function)
    }

    /// As [`run_write`](Self::run_write), with options.
    ///
    /// # Errors
    ///
    /// As [`run_write`](Self::run_write).
    ///
    /// # Cancel safety
    ///
    /// As [`Conn::transaction`].
    #[expect(
        clippy::manual_async_fn,
        reason = "a spawned task could not hold its future if the result has a `dyn` or a reference"
    )]
    pub fn run_write_with<'a, 'set, R, E, F>(
        &'set self,
        options: WriteOptions,
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
        async move {
            let config = self.config();
            let mut waits = config.writes().retry_backoff.retry();
            let mut runs = 0;
            loop {
                let mut conn = self.write().await?;
                match conn.transaction_with(&options, function.clone()).await {
                    Err(_) if conn.conflicted() && runs < config.writes().retries => {
                        runs += 1;
                        let wait = waits.next().unwrap_or_else(|| config.writes().retry_backoff.max_delay());
                        tracing::debug!(sqlstate = ?conn.last_sqlstate(), runs, ?wait, "a transaction is run again");
                        // Others may use the connection meanwhile.
                        drop(conn);
                        sleep(wait).await;
                    }
                    outcome => return outcome,
                }
            }
        }
    }
}
