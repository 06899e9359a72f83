//! A connection whose intent is part of its type.
//!
//! * [`Conn`]: what [`ReplicaSet`](crate::ReplicaSet) hands out, and its views
//! * [`BorrowedConn`]: a typed view of a connection that the caller opened
//! * [`RawAccess`]: the intents whose connection dereferences to a bare connection
//! * [`TransactionBuilder`]: transactions with isolation levels
//! * [`CancelHandle`]: cancels the statement of a connection from another task
//! * [`InDoubt`]: a transaction whose outcome may have to be resolved

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use diesel::result::QueryResult;
use diesel_async::AsyncPgConnection;
use ref_cast::{RefCastCustom, ref_cast_custom};

pub use self::bare::RawAccess;
pub use self::borrowed::BorrowedConn;
pub use self::cancel::CancelHandle;
use self::source::Source;
pub use self::transaction::{AsyncFunc, TransactionBuilder};
#[cfg(test)]
pub(crate) use self::transaction::{CommitSigns, outcome};
pub(crate) use self::transaction::{Doubt, Outcome, RunSigns, Stage};
pub(crate) use self::wal_position::WalPosition;
use crate::error::{InDoubt, OutcomeUnknown, SqlState};
use crate::lsn::{Lsn, PositionLog};
use crate::pool::Lease;
use crate::topology::Node;
use crate::topology::Role;
use crate::wire::{Statement, Tracking, WireState};
use crate::{Intent, Read, Writable, Write};

mod bare;
mod borrowed;
mod cancel;
mod source;
mod transaction;
mod wal_position;

/// The node's name on a connection without a node.
const UNMANAGED: &str = Role::Unmanaged.as_str();

/// A connection to PostgreSQL for one intent.
///
/// A [`ReplicaSet`](crate::ReplicaSet) hands it out, and it returns to its pool when it is dropped. Code that opens its
/// connection itself, such as a test, borrows it with [`borrow_from`](Self::borrow_from).
///
/// A `Conn<Read>` hides the bare connection. It has no `Deref`, because Diesel's async methods work on everything that
/// dereferences to a connection, and even on a shared reference to one. Statements run on it through
/// [`RunQueryDsl`](crate::RunQueryDsl), if they are [`ReadOnly`](crate::ReadOnly).
///
/// A `Conn<Write>` also dereferences to [`AsyncPgConnection`]. So code that takes one, or any `AsyncConnection`, keeps
/// working and can be migrated one function at a time.
///
/// ```
/// use pointsman::prelude::*;
///
/// diesel::table! { users (id) { id -> Integer, name -> Text, } }
///
/// async fn count(conn: &Conn<Read>) -> QueryResult<i64> {
///     users::table.count().get_result(conn).await
/// }
///
/// async fn add(conn: &Conn<Write>, name: &str) -> QueryResult<i64> {
///     diesel::insert_into(users::table).values(users::name.eq(name)).execute(conn).await?;
///     count(conn.as_read()).await
/// }
/// ```
#[derive(RefCastCustom)]
#[repr(transparent)]
pub struct Conn<I: Intent> {
    inner: ConnInner,
    intent: PhantomData<fn() -> I>,
}

/// The connection and its source, for any intent.
pub(crate) struct ConnInner {
    source: Source,
    /// A transaction was abandoned, and later statements would run inside it.
    ///
    /// They would never be committed.
    unusable: bool,
    /// The position that the server has to prove in the flight of the first request.
    unproven: Option<Lsn>,
    /// Time until a node had reached the position that the read required.
    causal_wait: Duration,
}

impl<I: Intent> Conn<I> {
    pub(crate) fn new(lease: Lease, node: Arc<Node>, role: Role) -> Self {
        Self::of(Source::pooled::<I>(lease, node, role))
    }

    fn of(source: Source) -> Self {
        Self {
            inner: ConnInner { source, unusable: false, unproven: None, causal_wait: Duration::ZERO },
            intent: PhantomData,
        }
    }

    #[ref_cast_custom]
    fn view(inner: &ConnInner) -> &Self;

    #[ref_cast_custom]
    fn view_mut(inner: &mut ConnInner) -> &mut Self;

    /// Returns a view of the connection for code that only reads.
    ///
    /// It is the same connection, inside its transaction if one is open. On a `Conn<Write>` only the type rejects a
    /// write through the view. The session may write, so `nextval` or a function that writes succeeds here, and fails
    /// on [`ReplicaSet::read`](crate::ReplicaSet::read). In tests of code that reads, check out with `read`.
    ///
    /// The view is a shared reference only: with an exclusive one, `mem::swap` could put a replica inside a
    /// `Conn<Write>`.
    pub fn as_read(&self) -> &Conn<Read> {
        Conn::<Read>::view(&self.inner)
    }

    /// Converts the connection into a `Conn<Read>`, for code that takes one by value.
    ///
    /// Only the type changes, because it is the same connection. The session of a `Conn<Write>` may write at the
    /// server, and a function that writes (`nextval`, or a user-defined one) is rejected on [`ReplicaSet::read`] only.
    ///
    /// ```
    /// use futures_util::Stream;
    /// use pointsman::prelude::*;
    ///
    /// diesel::table! { users (id) { id -> Integer, name -> Text, } }
    ///
    /// fn names(conn: Conn<Read>) -> impl Stream<Item = QueryResult<String>> + Send + 'static {
    ///     users::table.select(users::name).into_stream(conn)
    /// }
    ///
    /// fn from_the_primary(conn: Conn<Write>) -> impl Stream<Item = QueryResult<String>> + Send + 'static {
    ///     names(conn.into_read())
    /// }
    /// ```
    ///
    /// [`ReplicaSet::read`]: crate::ReplicaSet::read
    pub fn into_read(self) -> Conn<Read> {
        Conn { inner: self.inner, intent: PhantomData }
    }

    /// Changes the intent's type to a type parameter that is the same intent.
    pub(crate) fn with_intent<J: Intent>(self) -> Conn<J> {
        debug_assert_eq!(I::KIND, J::KIND, "an intent never becomes another one");
        Conn { inner: self.inner, intent: PhantomData }
    }

    /// Returns the connection for code that writes, if its intent permits that.
    pub fn as_write(&self) -> &Conn<Write>
    where
        I: Writable,
    {
        Conn::<Write>::view(&self.inner)
    }

    /// Returns an exclusive reference for code that writes, such as a transaction.
    pub fn as_write_mut(&mut self) -> &mut Conn<Write>
    where
        I: Writable,
    {
        Conn::<Write>::view_mut(&mut self.inner)
    }

    /// Returns the name of the node that serves the connection.
    ///
    /// It is `unmanaged` if the caller opened the connection.
    pub fn node(&self) -> &str {
        self.inner.source.node().map_or(UNMANAGED, |node| node.name())
    }

    /// Returns the role that the node had when the connection was checked out.
    ///
    /// It is [`Role::Unmanaged`] if the caller opened the connection.
    pub fn role(&self) -> Role {
        self.inner.source.role()
    }

    /// Returns the time that the read waited for the position of its causal token.
    ///
    /// It is zero if the first node that was asked was far enough, and for everything but a read with a token. Otherwise
    /// it is the time from the beginning of the checkout, or of the first run of [`run_read`], until this connection was
    /// handed out. `reads.causal_wait` limits the part of it in which the read only waits.
    ///
    /// [`run_read`]: crate::ReplicaSet::run_read
    pub fn causal_wait(&self) -> Duration {
        self.inner.causal_wait
    }

    /// Returns the SQLSTATE of the last error that the server sent on this connection.
    ///
    /// Inside a failed transaction, it stays the code of the first error, because the errors of later statements
    /// (mostly 25P02) are consequences. An error that ends the session replaces any other.
    ///
    /// Diesel keeps only some of the codes; a deadlock (40P01), for example, is `Unknown` there. This method works with
    /// either DSL. It returns `None` before the first error, if the connection broke without one, and always on a
    /// connection that the caller opened.
    pub fn last_sqlstate(&self) -> Option<SqlState> {
        self.inner.source.wire().sqlstate()
    }

    /// Returns `true` if the connection has ended.
    ///
    /// It broke, the server ended it (an error of severity FATAL), its node was fenced, or a transaction on it was
    /// cancelled. The result is `true` by the time that a statement's error reports a closed connection. On a
    /// connection that the caller opened, only a cancelled transaction is noticed.
    pub fn is_closed(&self) -> bool {
        self.inner.source.is_closed()
    }

    /// Closes the connection, so that no other caller gets its session.
    #[cfg(feature = "migrate")]
    pub(crate) fn retire(&self) {
        self.inner.source.give_up();
    }

    /// Returns `true` if this program closed the connection.
    ///
    /// It closes one for its node, or for an abandoned transaction.
    pub(crate) fn was_closed_here(&self) -> bool {
        self.inner.source.was_closed_here()
    }

    pub(crate) fn wire(&self) -> &Arc<WireState> {
        self.inner.source.wire()
    }

    /// Returns the node that serves the connection; `None` if the caller opened it.
    pub(crate) fn served_by(&self) -> Option<&Arc<Node>> {
        self.inner.source.node()
    }

    /// Clears the last error's code, which would be taken for the next statement's.
    pub(crate) fn forget_sqlstate(&self) {
        self.inner.source.wire().take_sqlstate();
    }

    fn has_conflict(&self) -> bool {
        !self.is_closed() && self.inner.source.wire().has_conflict()
    }

    /// Returns a statement's value, unless its commit lacks the synchronous standby.
    pub(crate) fn replicated<T>(&self, value: T) -> QueryResult<T> {
        if self.inner.source.wire().take_unreplicated() {
            return Err(self.unreplicated(None).into());
        }
        Ok(value)
    }

    /// Records the positions of what is read and written from now on.
    ///
    /// `timeline` is the one that a standby replays, as far as the set knows.
    pub(crate) fn track(&self, log: &Arc<PositionLog>, timeline: u32) {
        let is_primary = self.role() == Role::Primary;
        self.wire().track(Tracking { log: Arc::clone(log), timeline, is_primary });
    }

    /// Asks the server for its position, in a round trip.
    pub(crate) async fn ask_position(&self) -> Option<Lsn> {
        self.inner.source.ask_position().await
    }

    /// Asks a standby, in a round trip, to prove that it has replayed up to a position.
    pub(crate) async fn prove_position(&self, required: Lsn) -> bool {
        self.inner.source.prove_position(required).await
    }

    /// Lets the server prove a position in the flight of the first request.
    pub(crate) fn prove_in_flight(&mut self, required: Lsn) {
        self.wire().ask_before_next();
        self.inner.unproven = Some(required);
    }

    /// Takes the position that the server has to prove.
    pub(crate) fn take_unproven(&mut self) -> Option<Lsn> {
        self.inner.unproven.take()
    }

    /// Records how long the read took until a node had reached its position.
    pub(crate) fn set_causal_wait(&mut self, wait: Duration) {
        self.inner.causal_wait = wait;
    }

    /// Waits until the position of what was read or written is recorded.
    ///
    /// It arrives right behind the answer.
    pub(crate) async fn position_recorded(&self) {
        let wire = self.wire();
        if wire.is_tracked() {
            wire.positions_answered().await;
            if wire.has_missed_position() && wire.is_idle() && !self.is_closed() {
                // The request that carries this question is followed by the one that was missed.
                self.ask_position().await;
                wire.positions_answered().await;
            }
            if wire.has_missed_position() {
                wire.note_gap();
            }
        }
    }

    /// Completes a statement: its position is recorded, and its commit was replicated.
    pub(crate) async fn complete<T>(&self, value: T) -> QueryResult<T> {
        self.position_recorded().await;
        self.replicated(value)
    }

    fn node_name(&self) -> Option<String> {
        self.served_by().map(|node| node.name().to_owned())
    }

    fn unreplicated(&self, in_doubt: Option<InDoubt>) -> OutcomeUnknown {
        OutcomeUnknown { node: self.node_name(), sqlstate: None, in_doubt, committed_locally: true }
    }

    /// Returns the bare connection for one statement.
    ///
    /// Only [`RunQueryDsl`](crate::RunQueryDsl) uses it.
    pub(crate) fn connection(&self) -> QueryResult<BareConnection<'_>> {
        let ConnInner { source, unusable, .. } = &self.inner;
        if *unusable || source.is_exchanged() {
            return Err(diesel::result::Error::BrokenTransactionManager);
        }
        if source.usage().is_abandoned() {
            source.give_up();
            return Err(diesel::result::Error::BrokenTransactionManager);
        }
        Ok(BareConnection { bare: source.conn(), source, _statement: source.usage().statement() })
    }
}

/// The bare connection for one statement, kept as long as the statement's future.
pub(crate) struct BareConnection<'c> {
    pub(crate) bare: &'c AsyncPgConnection,
    source: &'c Source,
    _statement: Statement<'c>,
}

impl Drop for BareConnection<'_> {
    fn drop(&mut self) {
        if self.source.is_closed() {
            self.source.wire().set_hit(true);
        }
    }
}

impl<I: Intent> fmt::Debug for Conn<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("intent", &I::KIND)
            .field("node", &self.node())
            .field("role", &self.role())
            .finish_non_exhaustive()
    }
}
