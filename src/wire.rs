//! One physical connection, and what is known about it from the bytes that pass.
//!
//! A [`WireConnection`] is an `AsyncPgConnection` whose socket is ours. That buys four things that the
//! driver alone does not give: the SQLSTATE of every error, whichever DSL ran the statement; the
//! transaction status as the *server* last said it; the number of answers still owed; and a
//! connection that can be severed from outside, so that a query on a node that hangs ends when
//! its monitor says so.
//!
//! * `dial`: from a node's settings to a session, under one deadline
//! * `driver`: the task that moves the bytes, and the ways to end it
//! * `lending`: which checkout it is in, so that a late cancel request hits no other
//! * `mark`: whether the bare connection is still the one that was dialled
//! * `placeholder`: a connection without a server
//! * `tls`: rustls towards the server, as `sslmode` asks
//! * `usage`: which futures use the connection, and which were leaked
//! * `tap`: the byte stream, watched as it passes; `frames`: the borders of its messages
//! * `state`: what the messages say about the connection
//! * `session_state`: what a session keeps when its user is gone
//! * `remains`: the stream of a session that was given up

use std::sync::Arc;

use diesel_async::{AnsiTransactionManager, AsyncPgConnection, TransactionManager};

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
    /// Dropped before `conn`, so that the task knows that the end was asked for when it sees the client gone.
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

    /// Which futures use the connection.
    pub(crate) fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    /// Returns `true` if the bare connection is certainly not the one that was dialled.
    pub(crate) fn is_exchanged(&self) -> bool {
        self.usage.is_lent() && self.mark.is_elsewhere(&self.conn)
    }

    /// Returns `true` if the bare connection is the one that was dialled, and no future that was leaked holds on to it.
    ///
    /// It also takes off the instrumentation that a user set. If the connection was not lent, nothing can have happened.
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

    /// Whether Diesel believes that a transaction is open, or knows that it lost count.
    ///
    /// The server may know better, when a transaction was ended by raw SQL or its COMMIT was cancelled; but the next
    /// one to be begun here would be a savepoint, or fail.
    pub(crate) fn is_in_transaction(&mut self) -> bool {
        let broken = AnsiTransactionManager::is_broken_transaction_manager(&mut self.conn);
        let status = AnsiTransactionManager::transaction_manager_status_mut(&mut self.conn);
        broken || !matches!(status.transaction_depth(), Ok(None))
    }

    /// Passes on what the session is notified of from now on; the first caller has it.
    pub(crate) fn hear(&self, hearer: Hearer) {
        self.driver.hear(hearer);
    }

    pub(crate) fn wire(&self) -> &Arc<WireState> {
        &self.wire
    }

    /// Gives the session up: nothing more goes out on it but its end, statements that wait fail, and
    /// [`WireState::ended`] tells when the server has ended it. Returns `false` if it was given up before.
    pub(crate) fn give_up(&self) -> bool {
        let first = self.wire.give_up();
        self.driver.give_up();
        first
    }

    /// Returns `true` if the client may have asked for something that the wire does not know of yet.
    pub(crate) fn is_called(&self) -> bool {
        self.driver.call().is_pending()
    }

    pub(crate) fn call(&self) -> &Arc<Call> {
        self.driver.call()
    }

    /// Which checkout the session is in.
    pub(crate) fn lending(&self) -> &Arc<Lending> {
        &self.lending
    }

    /// Returns `true` if it was this program that ended the connection.
    pub(crate) fn was_closed_here(&self) -> bool {
        self.driver.is_severed() || self.driver.is_given_up()
    }

    /// Notes that a statement of this session is being cancelled.
    ///
    /// A cancel request has no answer. If it arrives late, it ends whatever runs on the session then, so the session
    /// must have no next user.
    pub(crate) fn note_cancelled(&self) {
        self.lending.note_cancelled();
    }

    /// Returns `true` if a statement of this session was cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.lending.is_cancelled()
    }

    /// Returns `true` if the connection has ended, was severed or given up, or the server said that its session ends.
    pub(crate) fn is_closed(&self) -> bool {
        self.driver.is_severed() || self.wire.is_closed() || self.wire.is_ending()
    }

    /// What [`Dialer::cancel`] needs to stop the statement that is running.
    pub(crate) fn cancel_token(&self) -> Cancel {
        self.cancel.clone()
    }
}
