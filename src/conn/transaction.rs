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
#[cfg(test)]
pub(crate) use self::outcome::{CommitSigns, outcome};
pub(crate) use self::outcome::{Doubt, Outcome, RunSigns, Stage};
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
        let run = run(self, None, false, function);
        async move { run.await.outcome }
    }
}

/// One run of a transaction.
pub(crate) struct Ran<R, E> {
    pub(crate) outcome: Result<R, E>,
    pub(crate) signs: RunSigns,
    /// The function's value and the note, if it is not known that the transaction was committed and is replicated.
    pub(crate) unanswered: Option<(R, Doubt)>,
}

impl<R, E> Ran<R, E> {
    fn failed(error: E, signs: RunSigns) -> Self {
        Self { outcome: Err(error), signs, unanswered: None }
    }
}

impl Conn<Write> {
    /// Runs a function once in a transaction with the options of `run_write_with`.
    pub(crate) async fn transaction_with<'a, R, E, F>(
        &mut self,
        options: &WriteOptions,
        function: F,
    ) -> Ran<R, E>
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
        run(self, Some(&sql), options.is_noted(), function).await
    }
}

async fn run<'a, I, R, E, F>(conn: &mut Conn<I>, sql: Option<&str>, notes: bool, function: F) -> Ran<R, E>
where
    I: Intent,
    for<'r> F: AsyncFnOnce(&'r mut Conn<I>) -> Result<R, E>
        + AsyncFunc<&'r mut Conn<I>, Result<R, E>, Fut: Send>
        + Send
        + 'a,
    E: From<Error> + Send + 'a,
    R: Send + 'a,
{
    let usable = conn.connection().map(drop);
    let is_nested = conn.inner.source.is_in_transaction();
    if !is_nested {
        // A nested transaction must not clear the error that failed the outer one.
        conn.forget_sqlstate();
        conn.wire().set_hit(false);
    }
    let mut guard = TransactionGuard::new(conn, notes && !is_nested);
    if let Err(error) = usable {
        let signs = guard.signs(Stage::Refused);
        return guard.end(Ran::failed(error.into(), signs));
    }
    if guard.conn.inner.source.usage().has_statements() {
        // The future of a transaction was leaked, and Diesel would panic.
        let signs = guard.signs(Stage::Refused);
        guard.conn.inner.unusable = true;
        guard.conn.inner.source.end();
        return guard.end(Ran::failed(Error::BrokenTransactionManager.into(), signs));
    }
    if let Err(error) = guard.begin(sql).await {
        // A transaction that did not begin needs no rollback.
        let signs = guard.signs(Stage::Begin);
        return guard.end(Ran::failed(error.into(), signs));
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
    let ran = match outcome {
        Ok(value) => {
            let committed = guard.commit().await;
            // Before anything else is done with the connection.
            let signs = guard.signs(committed.stage);
            guard.conn.position_recorded().await;
            match committed.answer {
                Ok(()) => Ran { outcome: Ok(value), signs, unanswered: None },
                Err(error) => {
                    let (outcome, unanswered) = (Err(error.into()), Some((value, committed.doubt)));
                    Ran { outcome, signs, unanswered }
                }
            }
        }
        Err(error) if !guard.is_intact() => {
            let signs = guard.signs(Stage::Function);
            guard.make_unusable();
            Ran::failed(error, signs)
        }
        Err(error) => {
            // ROLLBACK would wait for a statement whose future was dropped, for example by a timeout around it.
            let goes_on = guard.conn.inner.source.cancel_abandoned().await;
            if goes_on {
                // Answers that were not awaited count as well.
                guard.has_failed().await;
            }
            let signs = guard.signs(Stage::Function);
            if goes_on {
                guard.rollback().await;
                guard.conn.position_recorded().await;
            } else {
                guard.make_unusable();
            }
            Ran::failed(error, signs)
        }
    };
    if is_nested && ran.signs.ended {
        guard.conn.wire().set_hit(true);
    }
    guard.end(ran)
}
