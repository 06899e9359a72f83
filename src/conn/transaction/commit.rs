//! The protocol of COMMIT and ROLLBACK, and the guard of a transaction.
//!
//! A COMMIT has more outcomes than success and an error, because the driver does not check what the server did. Before
//! the COMMIT, the guard verifies that the original connection is in place and no statement has failed. After it,
//! [`outcome`] decides from what the connection showed.

use diesel::result::{Error, QueryResult};
use diesel_async::{AnsiTransactionManager, AsyncPgConnection, TransactionManager};

use super::outcome::{CommitSigns, Doubt, Outcome, RunSigns, Stage, outcome};
use crate::Intent;
use crate::conn::{Conn, WalPosition};
use crate::defect::Defect;
use crate::error::{InDoubt, OutcomeUnknown, TransactionFailed};
use crate::wire::{Noted, Transaction};

/// A transaction in progress, whose drop ends the connection.
pub(super) struct TransactionGuard<'c, I: Intent> {
    pub(super) conn: &'c mut Conn<I>,
    pub(super) transaction: Transaction,
    finished: bool,
    /// `true` if the transaction's id and position are noted.
    notes: bool,
}

/// The end of a transaction whose function returned a value.
pub(super) struct Committed {
    pub(super) answer: QueryResult<()>,
    pub(super) stage: Stage,
    pub(super) doubt: Doubt,
}

impl Committed {
    /// Nothing was committed.
    fn refused(error: Error) -> Self {
        Self { answer: Err(error), stage: Stage::Refused, doubt: Doubt::NotNoted }
    }
}

impl<'c, I: Intent> TransactionGuard<'c, I> {
    pub(super) fn new(conn: &'c mut Conn<I>, notes: bool) -> Self {
        let transaction = conn.inner.source.usage().transaction();
        Self { conn, transaction, finished: false, notes }
    }

    pub(super) fn bare(&mut self) -> &mut AsyncPgConnection {
        self.conn.inner.source.conn_mut()
    }

    pub(super) async fn begin(&mut self, sql: Option<&str>) -> QueryResult<()> {
        if self.notes {
            self.conn.wire().begin_notes();
        }
        match sql {
            Some(sql) => AnsiTransactionManager::begin_transaction_sql(self.bare(), sql).await?,
            None => AnsiTransactionManager::begin_transaction(self.bare()).await?,
        }
        if self.conn.inner.source.is_tapped() && !self.conn.wire().is_in_transaction() {
            return Err(self.broken());
        }
        Ok(())
    }

    /// Returns `true` if the original connection is in place, with no savepoint open.
    pub(super) fn is_intact(&self) -> bool {
        let source = &self.conn.inner.source;
        self.transaction.is_of(source.usage()) && self.transaction.is_innermost() && !source.is_exchanged()
    }

    /// Ends the session, because the original connection is not here to be committed.
    fn broken(&mut self) -> Error {
        self.make_unusable();
        Error::BrokenTransactionManager
    }

    /// Commits, and verifies that the server did.
    pub(super) async fn commit(&mut self) -> Committed {
        if !self.is_intact() {
            return Committed::refused(self.broken());
        }
        if !self.conn.inner.source.is_tapped() {
            let answer = self.commit_untapped().await;
            return Committed { answer, stage: Stage::Refused, doubt: Doubt::NotNoted };
        }
        if self.has_failed().await {
            return self.refuse_failed().await;
        }
        let outermost = self.is_outermost();
        let doubt = match self.doubt(outermost).await {
            Ok(doubt) => doubt,
            Err(error) if self.conn.is_closed() => {
                let stage = Stage::Commit { outcome: Outcome::NotSent, locally: false };
                return Committed { answer: Err(error), stage, doubt: Doubt::NotNoted };
            }
            Err(error) => {
                self.rollback().await;
                return Committed::refused(error);
            }
        };
        // The answers that were waited for may have brought an error.
        if self.has_failed().await {
            return self.refuse_failed().await;
        }
        // An earlier statement's error must not be mistaken for the answer to the COMMIT.
        let earlier = self.conn.wire().take_sqlstate();
        // An unreported warning belongs to a statement before the transaction, not to this COMMIT.
        self.conn.inner.source.warn_of_unreplicated();
        let (signs, answer) = self.send_commit().await;
        if !outermost {
            // A savepoint commits nothing, so its outcome is never in doubt.
            return Committed { answer, stage: Stage::Refused, doubt };
        }
        let (outcome, mut locally) = (outcome(signs), false);
        let wire = self.conn.wire();
        let answer = match outcome {
            Outcome::Unknown if Defect::UnknownIsCommitted.is_seeded() => Ok(()),
            Outcome::NotSent | Outcome::Rejected => answer,
            Outcome::NotEnded => Err(self.broken()),
            // A statement whose answer was not awaited failed just before the COMMIT.
            Outcome::RolledBack => Err(TransactionFailed { sqlstate: wire.sqlstate().or(earlier) }.into()),
            // The primary has the commit, but the standby may not.
            Outcome::Committed if wire.take_unreplicated() => {
                locally = true;
                Err(self.conn.unreplicated(doubt.in_doubt()).into())
            }
            Outcome::Committed => answer,
            Outcome::Unknown => {
                locally = wire.take_unreplicated();
                let (node, in_doubt) = (self.conn.node_name(), doubt.in_doubt());
                let sqlstate = wire.sqlstate();
                Err(OutcomeUnknown { node, sqlstate, in_doubt, committed_locally: locally }.into())
            }
        };
        Committed { answer, stage: Stage::Commit { outcome, locally }, doubt }
    }

    /// Rolls back a transaction one of whose statements has failed.
    async fn refuse_failed(&mut self) -> Committed {
        let sqlstate = self.conn.wire().sqlstate();
        self.rollback().await;
        Committed::refused(TransactionFailed { sqlstate }.into())
    }

    /// Returns the signs of a run that ends now.
    pub(super) fn signs(&self, stage: Stage) -> RunSigns {
        let (conn, wire) = (&*self.conn, self.conn.wire());
        RunSigns {
            stage,
            intact: self.is_intact(),
            ended: conn.is_closed(),
            hit: wire.is_hit(),
            owed: wire.has_pending(),
            severed: conn.was_closed_here(),
            conflict: conn.has_conflict(),
            sqlstate: wire.sqlstate(),
        }
    }

    /// Sends the COMMIT, and collects what the connection shows of it.
    async fn send_commit(&mut self) -> (CommitSigns, QueryResult<()>) {
        let wire = self.conn.wire();
        let was_over = wire.is_closed() || wire.is_ending();
        let sent_before = wire.requests_sent();
        let ended_before = wire.transactions_ended();
        let answer = AnsiTransactionManager::commit_transaction(self.bare()).await;
        let wire = self.conn.wire();
        if answer.is_err() && wire.sqlstate().is_some() {
            // The server shows a little after the error if the session goes on.
            wire.drained().await;
        }
        let signs = CommitSigns {
            not_sent: was_over || wire.requests_sent() == sent_before,
            succeeded: answer.is_ok(),
            ended: wire.transactions_ended() != ended_before,
            rolled_back: wire.rolled_back(),
            rejected: wire.sqlstate().is_some(),
            goes_on: wire.is_idle() && !wire.is_closed(),
        };
        (signs, answer)
    }

    /// Returns `true` if a statement failed since the transaction or savepoint began.
    pub(super) async fn has_failed(&self) -> bool {
        let wire = self.conn.inner.source.wire();
        // An error arrives a little before the transaction status that follows from it.
        if wire.sqlstate().is_some() && wire.has_pending() {
            wire.drained().await;
        }
        wire.is_failed() && !wire.is_closed()
    }

    /// Returns the note with which an unknown outcome is resolved.
    ///
    /// It takes a round trip only if no answer came with the transaction's statements.
    async fn doubt(&mut self, outermost: bool) -> QueryResult<Doubt> {
        let node = self.conn.served_by().map(|node| node.config().server_key());
        let Some(node) = node.filter(|_| self.notes && outermost) else { return Ok(Doubt::NotNoted) };
        let wire = self.conn.wire();
        wire.positions_answered().await;
        Ok(match wire.noted() {
            Noted::Nothing => Doubt::Nothing,
            Noted::Written(note) => Doubt::Noted(InDoubt::noted(note, node)),
            Noted::Missed => {
                let position = WalPosition::of(self.bare()).await?;
                position.in_doubt(node).map_or(Doubt::Nothing, Doubt::Noted)
            }
        })
    }

    pub(super) fn is_outermost(&mut self) -> bool {
        let status = AnsiTransactionManager::transaction_manager_status_mut(self.bare());
        status.transaction_depth().is_ok_and(|depth| depth.is_some_and(|depth| depth.get() == 1))
    }

    /// Rolls back; if that fails, ends the connection, which rolls back as well.
    pub(super) async fn rollback(&mut self) {
        if AnsiTransactionManager::rollback_transaction(self.bare()).await.is_err() {
            self.make_unusable();
        }
    }

    /// Ends the transaction's scope, after all commands were sent to the server.
    pub(super) fn end<T>(mut self, outcome: T) -> T {
        self.finished = true;
        outcome
    }

    pub(super) fn make_unusable(&mut self) {
        // A `Conn` that replaced this one is left alone, and an open transaction on this one makes it unusable.
        if self.transaction.is_of(self.conn.inner.source.usage()) {
            self.conn.inner.unusable = true;
            self.conn.wire().untrack();
            self.conn.inner.source.end();
        }
    }
}

impl<I: Intent> Drop for TransactionGuard<'_, I> {
    fn drop(&mut self) {
        if !self.finished {
            self.make_unusable();
        }
        if self.notes {
            self.conn.wire().end_notes();
        }
        if self.transaction.is_of(self.conn.inner.source.usage()) {
            self.transaction.end();
        }
    }
}
