//! One physical connection, and the state that its bytes show.
//!
//! A [`WireConnection`] is an `AsyncPgConnection` whose socket belongs to this crate. That adds four things to the
//! driver. The SQLSTATE of every error is known, with either DSL. So is the transaction status as the *server* last
//! reported it, and the number of pending answers. And the monitor can close a connection from outside, so that a
//! query on a node that hangs ends.
//!
//! * `asks`: asks for the server's position in the flight of a request
//! * `dial`: opens a session from a node's settings, under one deadline
//! * `driver`: the task that moves the bytes, and the ways to end it
//! * `lending`: counts checkouts, so that a late cancel request hits no other one
//! * `mark`: recognises the bare connection that was dialled
//! * `placeholder`: a connection without a server
//! * `tls`: rustls towards the server, as `sslmode` requires
//! * `usage`: the futures that use the connection, and those that were leaked
//! * `tap`: the byte stream, watched as it passes; `frames`: the boundaries of its messages
//! * `state`: the state of the connection by its messages
//! * `session_state`: the settings that a user leaves behind on a session
//! * `remains`: the stream of an abandoned session

use std::sync::Arc;

use diesel_async::{AnsiTransactionManager, AsyncPgConnection, SimpleAsyncConnection, TransactionManager};

use crate::lsn::Lsn;

pub(crate) use self::asks::{Note, Noted, Tracking};
pub(crate) use self::dial::{Cancel, Dialer, SessionKind};
use self::driver::Driver;
pub(crate) use self::driver::{Call, Hearer};
pub(crate) use self::lending::{Checkout, Lending};
use self::mark::Mark;
pub(crate) use self::placeholder::placeholder;
pub(crate) use self::session_state::Leftover;
pub(crate) use self::state::WireState;
use self::tap::ProtocolTap;
pub(crate) use self::usage::{Statement, Transaction, Usage};

mod asks;
mod dial;
mod driver;
mod frames;
mod lending;
mod mark;
mod placeholder;
mod remains;
mod session_state;
mod state;
mod tap;
mod tls;
mod usage;

/// One session at a server.
pub(crate) struct WireConnection {
    /// Dropped before `conn`.
    ///
    /// So the task knows that the end was requested when the client is gone.
    driver: Driver,
    conn: AsyncPgConnection,
    mark: Mark,
    usage: Arc<Usage>,
    wire: Arc<WireState>,
    cancel: Cancel,
    lending: Arc<Lending>,
}

impl std::fmt::Debug for WireConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WireConnection").field("wire", &self.wire).finish_non_exhaustive()
    }
}

impl WireConnection {
    fn new(mut conn: AsyncPgConnection, wire: Arc<WireState>, driver: Driver, cancel: Cancel) -> Self {
        let mark = Mark::new(&mut conn);
        Self { driver, conn, mark, usage: Arc::default(), wire, cancel, lending: Arc::default() }
    }

    pub(crate) fn conn(&self) -> &AsyncPgConnection {
        &self.conn
    }

    pub(crate) fn conn_mut(&mut self) -> &mut AsyncPgConnection {
        &mut self.conn
    }

    /// Asks the server for its position, which takes a round trip.
    ///
    /// Returns `None` if the server does not tell it, or the connection fails.
    pub(crate) async fn ask_position(&self) -> Option<Lsn> {
        self.wire.ask_before_next();
        // An empty request carries the question.
        (&mut &self.conn).batch_execute("").await.ok()?;
        self.wire.position_before()
    }

    /// Asks a standby to prove that it has replayed up to a position.
    ///
    /// This takes a round trip.
    pub(crate) async fn prove_position(&self, required: Lsn) -> bool {
        self.ask_position().await.is_some() && self.wire.is_proven(required)
    }

    /// Returns the record of the futures that use the connection.
    pub(crate) fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    /// Returns `true` if the bare connection is certainly not the one that was dialled.
    pub(crate) fn is_exchanged(&self) -> bool {
        self.usage.is_lent() && self.mark.is_elsewhere(&self.conn)
    }

    /// Returns `true` if the bare connection is the dialled one, and not leaked.
    ///
    /// A leaked future may hold it.
    ///
    /// This also removes a user's instrumentation. A connection that was never handed out cannot have been exchanged.
    pub(crate) fn reclaim(&mut self) -> bool {
        if self.usage.is_abandoned() || self.usage.has_statements() {
            return false;
        }
        if self.usage.is_lent() {
            if !self.mark.renew(&mut self.conn) {
                return false;
            }
            self.usage.returned();
        }
        true
    }

    /// Returns `true` if Diesel counts an open transaction, or a wrong number.
    ///
    /// The server may disagree, if raw SQL ended a transaction or a COMMIT was cancelled. Even so, the next transaction
    /// here would be a savepoint, or fail.
    pub(crate) fn is_in_transaction(&mut self) -> bool {
        let broken = AnsiTransactionManager::is_broken_transaction_manager(&mut self.conn);
        let status = AnsiTransactionManager::transaction_manager_status_mut(&mut self.conn);
        broken || !matches!(status.transaction_depth(), Ok(None))
    }

    /// Forwards the session's notifications from now on, to the first caller.
    pub(crate) fn hear(&self, hearer: Hearer) {
        self.driver.hear(hearer);
    }

    pub(crate) fn wire(&self) -> &Arc<WireState> {
        &self.wire
    }

    /// Abandons the session; returns `false` if it was abandoned before.
    ///
    /// Only the end of the session is still sent, and waiting statements fail. [`WireState::ended`] completes when the
    /// server has ended the session.
    pub(crate) fn give_up(&self) -> bool {
        let first = self.wire.give_up();
        self.driver.give_up();
        first
    }

    /// Returns `true` if the client may have a request that the wire has not seen.
    pub(crate) fn is_called(&self) -> bool {
        self.driver.call().is_pending()
    }

    pub(crate) fn call(&self) -> &Arc<Call> {
        self.driver.call()
    }

    /// Returns the record of the session's checkouts.
    pub(crate) fn lending(&self) -> &Arc<Lending> {
        &self.lending
    }

    /// Returns `true` if this program closed the connection.
    pub(crate) fn was_closed_here(&self) -> bool {
        self.driver.is_close_requested() || self.driver.is_given_up()
    }

    /// Records that a statement of this session is being cancelled.
    ///
    /// A cancel request has no answer. If it arrives late, it cancels a later statement of the session, so the session
    /// must have no next user.
    pub(crate) fn note_cancelled(&self) {
        self.lending.note_cancelled();
    }

    /// Returns `true` if a statement of this session was cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.lending.is_cancelled()
    }

    /// Returns `true` if the connection was closed, has ended, or is about to end.
    ///
    /// The server announces an end.
    pub(crate) fn is_closed(&self) -> bool {
        self.driver.is_close_requested() || self.wire.is_closed() || self.wire.is_ending()
    }

    /// Returns the token with which [`Dialer::cancel`] cancels the running statement.
    pub(crate) fn cancel_token(&self) -> Cancel {
        self.cancel.clone()
    }
}
