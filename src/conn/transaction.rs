//! Transactions: nested, with isolation levels, and never abandoned half-way.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;

use diesel::result::{Error, QueryResult};
use diesel_async::{AnsiTransactionManager, AsyncPgConnection, TransactionManager};

use super::{Conn, WalPosition};
use crate::error::{InDoubt, OutcomeUnknown, TransactionFailed};
use crate::options::WriteOptions;
use crate::wire::Transaction;
use crate::{Intent, Writable, Write};

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
    /// * [`OutcomeUnknown`] if the answer to the COMMIT never came.
    /// * [`TransactionFailed`] if the function returned `Ok` although one of its statements had failed.
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

    /// Starts to build a transaction with an isolation level and an access mode.
    pub fn build_transaction(&mut self) -> TransactionBuilder<'_, I> {
        TransactionBuilder { conn: self, isolation: None, access: None, deferrable: false }
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
        let mut transaction = self.build_transaction();
        transaction.isolation = options.isolation;
        let sql = transaction.to_string();
        run(self, Some(&sql), options.resolvable, function).await
    }
}

/// A builder of a transaction; [`run`](Self::run) runs it.
///
/// ```
/// use pointsman::prelude::*;
///
/// diesel::table! { accounts (id) { id -> Integer, balance -> BigInt, } }
///
/// /// Both queries see the same moment.
/// async fn report(conn: &mut Conn<Read>) -> QueryResult<(i64, Vec<i64>)> {
///     conn.build_transaction()
///         .repeatable_read()
///         .run(async |tx| {
///             let count = accounts::table.count().get_result(tx).await?;
///             let balances = accounts::table.select(accounts::balance).load(tx).await?;
///             Ok((count, balances))
///         })
///         .await
/// }
/// ```
#[must_use = "a transaction does nothing until `run`"]
pub struct TransactionBuilder<'c, I: Intent> {
    conn: &'c mut Conn<I>,
    isolation: Option<&'static str>,
    access: Option<&'static str>,
    deferrable: bool,
}

impl<'c, I: Intent> TransactionBuilder<'c, I> {
    /// Sets the default level: each statement sees what was committed before it began.
    pub fn read_committed(mut self) -> Self {
        self.isolation = Some("READ COMMITTED");
        self
    }

    /// Sets the level at which all statements see one snapshot.
    ///
    /// They see what was committed before the first of them. It is the strictest level on a standby.
    pub fn repeatable_read(mut self) -> Self {
        self.isolation = Some("REPEATABLE READ");
        self
    }

    /// Sets the transaction to read only, at the server.
    pub fn read_only(mut self) -> Self {
        self.access = Some("READ ONLY");
        self
    }

    /// Runs a function in the transaction: `Ok` commits, `Err` rolls back.
    ///
    /// # Errors
    ///
    /// As [`Conn::transaction`]; [`AlreadyInTransaction`](Error::AlreadyInTransaction) inside another one, because a
    /// savepoint has no separate isolation level.
    ///
    /// # Cancel safety
    ///
    /// As [`Conn::transaction`].
    #[expect(
        clippy::manual_async_fn,
        reason = "a spawned task could not hold its future if the result has a `dyn` or a reference"
    )]
    pub fn run<'a, R, E, F>(self, function: F) -> impl Future<Output = Result<R, E>> + Send + 'c
    where
        for<'r> F: AsyncFnOnce(&'r mut Conn<I>) -> Result<R, E>
            + AsyncFunc<&'r mut Conn<I>, Result<R, E>, Fut: Send>
            + Send
            + 'a,
        E: From<Error> + Send + 'a,
        R: Send + 'a,
        'a: 'c,
    {
        async move {
            let sql = self.to_string();
            run(self.conn, Some(&sql), false, function).await
        }
    }
}

/// Options that a `Conn<Read>` lacks, because a standby rejects `SERIALIZABLE`.
impl<I: Intent> TransactionBuilder<'_, I> {
    /// Sets the level at which the transaction behaves as if it ran alone.
    ///
    /// If it cannot, it fails with SQLSTATE 40001.
    pub fn serializable(mut self) -> Self
    where
        I: Writable,
    {
        self.isolation = Some("SERIALIZABLE");
        self
    }

    /// Permits writes, even if the session's default is read only.
    pub fn read_write(mut self) -> Self
    where
        I: Writable,
    {
        self.access = Some("READ WRITE");
        self
    }

    /// Lets a serializable read-only transaction wait for a snapshot that cannot fail.
    pub fn deferrable(mut self) -> Self
    where
        I: Writable,
    {
        self.deferrable = true;
        self
    }
}

/// The statement that begins the transaction.
impl<I: Intent> fmt::Display for TransactionBuilder<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BEGIN TRANSACTION")?;
        if let Some(level) = self.isolation {
            write!(f, " ISOLATION LEVEL {level}")?;
        }
        if let Some(access) = self.access {
            write!(f, " {access}")?;
        }
        if self.deferrable {
            f.write_str(" DEFERRABLE")?;
        }
        Ok(())
    }
}

impl<I: Intent> fmt::Debug for TransactionBuilder<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransactionBuilder({self})")
    }
}

/// A transaction in progress; if it is dropped before its end, it ends the connection.
struct TransactionGuard<'c, I: Intent> {
    conn: &'c mut Conn<I>,
    transaction: Transaction,
    finished: bool,
}

impl<I: Intent> TransactionGuard<'_, I> {
    fn bare(&mut self) -> &mut AsyncPgConnection {
        self.conn.inner.source.conn_mut()
    }

    async fn begin(&mut self, sql: Option<&str>) -> QueryResult<()> {
        match sql {
            Some(sql) => AnsiTransactionManager::begin_transaction_sql(self.bare(), sql).await?,
            None => AnsiTransactionManager::begin_transaction(self.bare()).await?,
        }
        if self.conn.inner.source.is_tapped() && !self.conn.wire().is_in_transaction() {
            return Err(self.broken());
        }
        Ok(())
    }

    /// Returns `true` if the original connection is in place, without an open inner transaction.
    fn is_intact(&self) -> bool {
        let source = &self.conn.inner.source;
        self.transaction.is_of(source.usage()) && self.transaction.is_innermost() && !source.is_exchanged()
    }

    /// Ends the session, because the original connection is not here to be committed.
    fn broken(&mut self) -> Error {
        self.poison();
        Error::BrokenTransactionManager
    }

    /// Commits, and verifies that the server did.
    async fn commit(&mut self, resolvable: bool) -> QueryResult<()> {
        if !self.is_intact() {
            return Err(self.broken());
        }
        if !self.conn.inner.source.is_tapped() {
            return self.commit_untapped().await;
        }
        let outermost = self.is_outermost();
        if self.has_failed().await {
            let sqlstate = self.conn.inner.source.wire().sqlstate();
            self.rollback().await;
            return Err(TransactionFailed { sqlstate }.into());
        }
        let in_doubt = if resolvable && outermost { self.in_doubt().await? } else { None };
        // An earlier statement's error must not be mistaken for the answer to the COMMIT.
        let earlier = self.conn.inner.source.wire().take_sqlstate();
        let wire = self.conn.inner.source.wire();
        let unsent = wire.is_closed() || wire.is_ending();
        let ended_before = wire.transactions_ended();
        // An unreported warning belongs to a statement before the transaction, not to this COMMIT.
        self.conn.inner.source.warn_of_unreplicated();
        let committed = AnsiTransactionManager::commit_transaction(self.bare()).await;
        let wire = self.conn.inner.source.wire();
        if committed.is_err() && wire.sqlstate().is_some() {
            // The server shows a little after the error if the session goes on.
            wire.drained().await;
        }
        match committed {
            // The connection had ended before, so nothing was sent to the server.
            Err(error) if unsent => Err(error),
            Ok(()) if outermost && wire.transactions_ended() == ended_before => Err(self.broken()),
            Ok(()) if outermost && wire.rolled_back() => {
                // A statement whose answer was not awaited failed just before the COMMIT.
                Err(TransactionFailed { sqlstate: wire.sqlstate().or(earlier) }.into())
            }
            // The primary has the commit, but the standby may not.
            Ok(()) if outermost && wire.take_unreplicated() => Err(self.conn.unreplicated(in_doubt).into()),
            // The server certainly did not commit only if it sent an error and the session goes on. A server that
            // crashed while it wrote the commit to its log sends an error as well.
            Err(_) if outermost && (wire.sqlstate().is_none() || !wire.is_idle() || wire.is_closed()) => {
                let node = self.conn.node_name();
                let committed_locally = wire.take_unreplicated();
                Err(OutcomeUnknown { node, sqlstate: wire.sqlstate(), in_doubt, committed_locally }.into())
            }
            committed => committed,
        }
    }

    /// Returns `true` if a statement failed since the transaction or savepoint began.
    async fn has_failed(&self) -> bool {
        let wire = self.conn.inner.source.wire();
        // An error arrives a little before the transaction status that follows from it.
        if wire.sqlstate().is_some() && wire.has_pending() {
            wire.drained().await;
        }
        wire.is_failed() && !wire.is_closed()
    }

    /// Returns the record with which an unknown outcome is resolved.
    async fn in_doubt(&mut self) -> QueryResult<Option<InDoubt>> {
        match WalPosition::of(self.bare()).await {
            Ok(position) => {
                let node = self.conn.served_by().map(|node| node.config().server_key());
                Ok(node.and_then(|node| position.in_doubt(node)))
            }
            Err(error) => {
                self.rollback().await;
                Err(error)
            }
        }
    }

    fn is_outermost(&mut self) -> bool {
        let status = AnsiTransactionManager::transaction_manager_status_mut(self.bare());
        status.transaction_depth().is_ok_and(|depth| depth.is_some_and(|depth| depth.get() == 1))
    }

    /// Rolls back; if that fails, ends the connection, which rolls back as well.
    async fn rollback(&mut self) {
        if AnsiTransactionManager::rollback_transaction(self.bare()).await.is_err() {
            self.poison();
        }
    }

    /// Ends the transaction's scope, after all commands were sent to the server.
    fn end<T>(mut self, outcome: T) -> T {
        self.finished = true;
        outcome
    }

    fn poison(&mut self) {
        // A `Conn` that replaced this one is left alone, and an open transaction on this one makes it unusable.
        if self.transaction.is_of(self.conn.inner.source.usage()) {
            self.conn.inner.poisoned = true;
            self.conn.inner.source.end();
        }
    }
}

impl<I: Intent> Drop for TransactionGuard<'_, I> {
    fn drop(&mut self) {
        if !self.finished {
            self.poison();
        }
        if self.transaction.is_of(self.conn.inner.source.usage()) {
            self.transaction.end();
        }
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
        conn.inner.poisoned = true;
        conn.inner.source.end();
        return Err(Error::BrokenTransactionManager.into());
    }
    let transaction = conn.inner.source.usage().transaction();
    let mut guard = TransactionGuard { conn, transaction, finished: false };
    if let Err(error) = guard.begin(sql).await {
        // A transaction that did not begin needs no rollback.
        guard.finished = true;
        return Err(error.into());
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
        Ok(value) => guard.commit(resolvable).await.map(|()| value).map_err(E::from),
        Err(error) if !guard.is_intact() => {
            guard.poison();
            return guard.end(Err(error));
        }
        Err(error) => {
            // ROLLBACK would wait for a statement whose future was dropped, for example by a timeout around it.
            if !guard.conn.inner.source.cancel_abandoned().await {
                guard.poison();
                return guard.end(Err(error));
            }
            // Answers that were not awaited count as well.
            guard.has_failed().await;
            guard.conn.inner.conflicted = guard.conn.has_conflict();
            guard.rollback().await;
            return guard.end(Err(error));
        }
    };
    guard.conn.inner.conflicted = outcome.is_err() && guard.conn.has_conflict();
    guard.end(outcome)
}
