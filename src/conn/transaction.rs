//! Transactions: nested, with isolation levels, and never abandoned half-way.
//!
//! * `builder`: a transaction with an isolation level and an access mode
//! * `commit`: the protocol of the COMMIT and the rollback, and the guard that ends a dropped transaction
//! * `outcome`: what the signs around a COMMIT prove (pure)
//! * `untapped`: the same protocol on a connection that the caller opened

use std::future::{Future, poll_fn};
use std::pin::pin;

use diesel::result::Error;

pub use self::builder::TransactionBuilder;
use self::commit::TransactionGuard;
use super::Conn;
use crate::options::{TransactionMode, WriteOptions};
use crate::{Intent, Write};

mod builder;
mod commit;
mod outcome;
mod untapped;

/// An async closure with a bound on its future, such as `Send`.
///
/// `AsyncFnOnce` gives its future no name yet, so a bound on it cannot be written (Rust issue 103854). Every async
/// closure implements this trait already.
pub trait AsyncFunc<T, R>: AsyncFnOnce(T) -> R + FnOnce(T) -> <Self as AsyncFunc<T, R>>::Fut {
    /// The closure's future.
    type Fut: Future<Output = R>;
}

impl<F, T, Fut, R> AsyncFunc<T, R> for F
where
    F: AsyncFnOnce(T) -> R + FnOnce(T) -> Fut,
    Fut: Future<Output = R>,
{
    type Fut = Fut;
}

impl<I: Intent> Conn<I> {
    /// Runs a function in a transaction: `Ok` commits, `Err` rolls back.
    ///
    /// Inside another transaction it is a savepoint. The function gets the connection with its intent, so a write
    /// inside a read transaction does not compile either.
    ///
    /// # Errors
    ///
    /// The function's own error, after the rollback, or Diesel's error, converted into `E`:
    ///
    /// * The error of BEGIN or COMMIT, if it fails.
    /// * [`OutcomeUnknown`](crate::OutcomeUnknown) if the answer to the COMMIT never came.
    /// * [`TransactionFailed`](crate::TransactionFailed) if the function returned `Ok` although one of its statements had failed.
    /// * [`BrokenTransactionManager`](Error::BrokenTransactionManager), without a commit, if the function exchanged the
    ///   `Conn` or its bare connection for another (`mem::swap`), or leaked the future of a transaction inside this
    ///   one.
    ///
    /// # Cancel safety
    ///
    /// A dropped future ends the connection, and with it the transaction, also at the server. Otherwise the next
    /// transaction would be a savepoint in this one, and never be committed. Later statements on the `Conn` fail with
    /// [`BrokenTransactionManager`](Error::BrokenTransactionManager). If the future is dropped during the COMMIT, the
    /// outcome is unknown.
    ///
    /// A future that was polled and then leaked (`mem::forget`) leaves the transaction open, and the compiler lets the
    /// `Conn` be used again. Later statements on it fail in the same way, and end the connection.
    ///
    /// ```
    /// use pointsman::prelude::*;
    ///
    /// diesel::table! { accounts (id) { id -> Integer, balance -> BigInt, } }
    ///
    /// async fn transfer(conn: &mut Conn<Write>, from: i32, to: i32, amount: i64) -> QueryResult<()> {
    ///     conn.transaction(async |tx| {
    ///         let take = accounts::balance.eq(accounts::balance - amount);
    ///         let give = accounts::balance.eq(accounts::balance + amount);
    ///         diesel::update(accounts::table.find(from)).set(take).execute(tx).await?;
    ///         diesel::update(accounts::table.find(to)).set(give).execute(tx).await?;
    ///         Ok(())
    ///     })
    ///     .await
    /// }
    /// ```
    // Not an `async fn`, because a spawned task could not hold its future if the result or the closure has a `dyn` or a
    // reference.
    pub fn transaction<'a, 'conn, R, E, F>(
        &'conn mut self,
        function: F,
    ) -> impl Future<Output = Result<R, E>> + Send + 'conn
    where
        for<'r> F: AsyncFnOnce(&'r mut Self) -> Result<R, E>
            + AsyncFunc<&'r mut Self, Result<R, E>, Fut: Send>
            + Send
            + 'a,
        E: From<Error> + Send + 'a,
        R: Send + 'a,
        'a: 'conn,
    {
        run(self, None, false, function)
    }
}

impl Conn<Write> {
    /// Runs a function in a transaction with the options of `run_write_with`.
    pub(crate) async fn transaction_with<'a, R, E, F>(
        &mut self,
        options: &WriteOptions,
        function: F,
    ) -> Result<R, E>
    where
        for<'r> F: AsyncFnOnce(&'r mut Self) -> Result<R, E>
            + AsyncFunc<&'r mut Self, Result<R, E>, Fut: Send>
            + Send
            + 'a,
        E: From<Error> + Send + 'a,
        R: Send + 'a,
    {
        let mode = TransactionMode { isolation: options.isolation, ..TransactionMode::default() };
        let sql = mode.to_string();
        run(self, Some(&sql), options.resolvable, function).await
    }
}

async fn run<'a, I, R, E, F>(
    conn: &mut Conn<I>,
    sql: Option<&str>,
    resolvable: bool,
    function: F,
) -> Result<R, E>
where
    I: Intent,
    for<'r> F: AsyncFnOnce(&'r mut Conn<I>) -> Result<R, E>
        + AsyncFunc<&'r mut Conn<I>, Result<R, E>, Fut: Send>
        + Send
        + 'a,
    E: From<Error> + Send + 'a,
    R: Send + 'a,
{
    conn.connection()?;
    if !conn.inner.source.is_in_transaction() {
        // A nested transaction must not clear the error that failed the outer one.
        conn.forget_sqlstate();
    }
    if conn.inner.source.usage().has_statements() {
        // The future of a transaction was leaked, and Diesel would panic.
        conn.inner.unusable = true;
        conn.inner.source.end();
        return Err(Error::BrokenTransactionManager.into());
    }
    let mut guard = TransactionGuard::new(conn);
    if let Err(error) = guard.begin(sql).await {
        // A transaction that did not begin needs no rollback.
        return guard.end(Err(error.into()));
    }
    let outcome = {
        // Only the function may use the connection now: any other use comes after this future was leaked.
        let function = {
            let _polled = guard.transaction.poll();
            function(&mut *guard.conn)
        };
        let mut function = pin!(function);
        poll_fn(|context| {
            let _polled = guard.transaction.poll();
            function.as_mut().poll(context)
        })
        .await
    };
    let outcome = match outcome {
        Ok(value) => {
            let committed = guard.commit(resolvable).await;
            guard.conn.position_recorded().await;
            committed.map(|()| value).map_err(E::from)
        }
        Err(error) if !guard.is_intact() => {
            guard.make_unusable();
            return guard.end(Err(error));
        }
        Err(error) => {
            // ROLLBACK would wait for a statement whose future was dropped, for example by a timeout around it.
            if !guard.conn.inner.source.cancel_abandoned().await {
                guard.make_unusable();
                return guard.end(Err(error));
            }
            // Answers that were not awaited count as well.
            guard.has_failed().await;
            guard.conn.inner.conflicted = guard.conn.has_conflict();
            guard.rollback().await;
            guard.conn.position_recorded().await;
            return guard.end(Err(error));
        }
    };
    guard.conn.inner.conflicted = outcome.is_err() && guard.conn.has_conflict();
    guard.end(outcome)
}
