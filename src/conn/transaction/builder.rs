//! Transactions with an isolation level and an access mode.

use std::fmt;

use diesel::result::Error;

use super::{AsyncFunc, run};
use crate::conn::Conn;
use crate::options::{AccessMode, IsolationLevel, TransactionMode};
use crate::{Intent, Writable};

impl<I: Intent> Conn<I> {
    /// Starts to build a transaction with an isolation level and an access mode.
    pub fn build_transaction(&mut self) -> TransactionBuilder<'_, I> {
        TransactionBuilder { conn: self, mode: TransactionMode::default() }
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
    mode: TransactionMode,
}

impl<'c, I: Intent> TransactionBuilder<'c, I> {
    /// Sets the default level: each statement sees what was committed before it began.
    pub fn read_committed(mut self) -> Self {
        self.mode.isolation = Some(IsolationLevel::ReadCommitted);
        self
    }

    /// Sets the level at which all statements see one snapshot.
    ///
    /// They see what was committed before the first of them. It is the strictest level on a standby.
    pub fn repeatable_read(mut self) -> Self {
        self.mode.isolation = Some(IsolationLevel::RepeatableRead);
        self
    }

    /// Sets the transaction to read only, at the server.
    pub fn read_only(mut self) -> Self {
        self.mode.access = Some(AccessMode::ReadOnly);
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
            let sql = self.mode.to_string();
            run(self.conn, Some(&sql), false, function).await.outcome
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
        self.mode.isolation = Some(IsolationLevel::Serializable);
        self
    }

    /// Permits writes, even if the session's default is read only.
    pub fn read_write(mut self) -> Self
    where
        I: Writable,
    {
        self.mode.access = Some(AccessMode::ReadWrite);
        self
    }

    /// Lets a serializable read-only transaction wait for a snapshot that cannot fail.
    pub fn deferrable(mut self) -> Self
    where
        I: Writable,
    {
        self.mode.deferrable = true;
        self
    }
}

/// The statement that begins the transaction.
impl<I: Intent> fmt::Display for TransactionBuilder<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mode.fmt(f)
    }
}

impl<I: Intent> fmt::Debug for TransactionBuilder<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransactionBuilder({self})")
    }
}
