//! Tracks the futures that use a connection, to notice leaked ones.
//!
//! A dropped future cleans up. A leaked one (`mem::forget`, a cycle of `Arc`s) does not, and the compiler still
//! considers its borrow of the connection ended. Its work goes on: a transaction, or the lock of a cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// The uses of one connection.
///
/// All changes happen under a borrow, so they need no memory ordering.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// Transactions and savepoints whose futures have not ended.
    transactions: AtomicU32,
    /// Number of them being polled.
    polled: AtomicU32,
    /// Statements whose futures have not ended.
    statements: AtomicU32,
    /// `true` if the bare connection was handed out since the last check.
    lent: AtomicBool,
}

/// A transaction or a savepoint, until it ends.
#[derive(Debug)]
pub(crate) struct Transaction(Arc<Usage>);

/// A statement whose future exists.
#[derive(Debug)]
pub(crate) struct Statement<'u>(&'u Usage);

/// The function of a transaction, while it runs.
#[derive(Debug)]
pub(crate) struct Polled<'u>(&'u Usage);

impl Usage {
    /// Counts a statement until the guard is dropped.
    pub(crate) fn statement(&self) -> Statement<'_> {
        self.statements.fetch_add(1, Relaxed);
        Statement(self)
    }

    /// Counts a transaction until it [ends](Transaction::end).
    pub(crate) fn transaction(self: &Arc<Self>) -> Transaction {
        self.transactions.fetch_add(1, Relaxed);
        Transaction(Arc::clone(self))
    }

    /// Returns `true` if a transaction is open whose future was leaked.
    ///
    /// Its function does not run then.
    ///
    /// While that future exists it borrows the connection, so only its function can use it.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.transactions.load(Relaxed) != self.polled.load(Relaxed)
    }

    /// Returns `true` if a statement has not ended.
    ///
    /// If there is no other borrow of the connection, the statement's future was leaked.
    pub(crate) fn has_statements(&self) -> bool {
        self.statements.load(Relaxed) > 0
    }

    /// Records that the bare connection is handed out.
    pub(crate) fn lend(&self) {
        self.lent.store(true, Relaxed);
    }

    /// Returns `true` if the bare connection was handed out.
    pub(crate) fn is_lent(&self) -> bool {
        self.lent.load(Relaxed)
    }

    /// Records that the bare connection is the right one.
    pub(super) fn returned(&self) {
        self.lent.store(false, Relaxed);
    }
}

impl Transaction {
    /// Counts a poll of its function until the guard is dropped.
    pub(crate) fn poll(&self) -> Polled<'_> {
        self.0.polled.fetch_add(1, Relaxed);
        Polled(&self.0)
    }

    /// Returns `true` if no inner transaction is open.
    ///
    /// The future of an open one was leaked.
    pub(crate) fn is_innermost(&self) -> bool {
        self.0.transactions.load(Relaxed) == self.0.polled.load(Relaxed) + 1
    }

    /// Returns `true` if it is a transaction of this connection.
    pub(crate) fn is_of(&self, usage: &Arc<Usage>) -> bool {
        Arc::ptr_eq(&self.0, usage)
    }

    /// Records that the transaction has ended, or that its session is going to.
    pub(crate) fn end(&self) {
        self.0.transactions.fetch_sub(1, Relaxed);
    }
}

impl Drop for Statement<'_> {
    fn drop(&mut self) {
        self.0.statements.fetch_sub(1, Relaxed);
    }
}

impl Drop for Polled<'_> {
    fn drop(&mut self) {
        self.0.polled.fetch_sub(1, Relaxed);
    }
}
