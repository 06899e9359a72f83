//! Access to the bare connection, for code that takes one.

use std::ops::{Deref, DerefMut};

use diesel_async::AsyncPgConnection;

use super::Conn;
use crate::{Intent, Write};

/// The intents whose `Conn` dereferences to [`AsyncPgConnection`]: [`Write`].
///
/// diesel-async's methods work on everything that dereferences to a connection. For a `Conn<Read>`, the compiler
/// reports this bound in our words instead of a missing `DerefMut`.
///
/// ```
/// use diesel_async::AsyncPgConnection;
/// use pointsman::prelude::*;
///
/// async fn existing(conn: &mut AsyncPgConnection) {}
///
/// async fn moved(conn: &mut Conn<Write>) {
///     existing(conn).await;
/// }
/// ```
///
/// # What must come back
///
/// Code with an exclusive reference can exchange the connection for another (`mem::swap`, or an assignment). While
/// another one is in its place, Pointsman's methods fail with
/// [`BrokenTransactionManager`](diesel::result::Error::BrokenTransactionManager). If it still is when the `Conn` is
/// dropped, both sessions end and no later user gets either. Code that uses the bare connection itself runs on the
/// exchanged one.
///
/// Instrumentation that is set on the bare connection works until the `Conn` is dropped. It then ends the session,
/// because Pointsman recognises its connections by their instrumentation. For all connections use
/// [`set_default_instrumentation`](diesel::connection::set_default_instrumentation), which costs nothing. After
/// `set_instrumentation` or an assignment, transactions notice an exchange at once. Single statements notice it only
/// when the `Conn` is dropped.
#[diagnostic::on_unimplemented(
    message = "a `Conn<Read>` does not lend its bare connection, because anything could write on that",
    label = "the intent here is `{Self}`, not `Write`",
    note = "to read, run statements with Pointsman's methods: import `pointsman::prelude::*` instead of `diesel::prelude::*` and `diesel_async::RunQueryDsl`",
    note = "to write, or for code that takes any `AsyncConnection`, check out a `Conn<Write>` with `ReplicaSet::write`"
)]
pub trait RawAccess: Intent {}

impl RawAccess for Write {}

impl<I: RawAccess> Deref for Conn<I> {
    type Target = AsyncPgConnection;

    fn deref(&self) -> &AsyncPgConnection {
        self.lend();
        self.inner.source.conn()
    }
}

impl<I: RawAccess> DerefMut for Conn<I> {
    fn deref_mut(&mut self) -> &mut AsyncPgConnection {
        self.lend();
        self.inner.source.conn_mut()
    }
}

impl<I: RawAccess> Conn<I> {
    /// Records that the bare connection is handed out, and may be exchanged.
    fn lend(&self) {
        let source = &self.inner.source;
        source.usage().lend();
        if source.is_closed() {
            source.wire().set_hit(true);
        }
        if source.usage().is_abandoned() {
            // Statements on it would be rolled back with the abandoned transaction.
            source.give_up();
        }
    }
}

/// Methods of [`AsyncPgConnection`] that no intent has.
///
/// They need a socket that diesel-async opened.
///
/// Through the dereferenced connection, `notifications_stream` would wait for ever and `cancel_token` find no host. So
/// [`Conn`] has methods with both names, and calling them is a compile error that names the replacement.
#[diagnostic::on_unimplemented(
    message = "a pooled connection has neither `notifications_stream` nor `cancel_token`",
    label = "the socket of this connection is not opened by diesel-async, so these would hang or fail",
    note = "for notifications: `ReplicaSet::listen`, a stream on a separate connection that follows the primary through failovers",
    note = "to cancel a statement: `Conn::cancel_handle`, which sends its request the way that the pool connects"
)]
#[expect(unnameable_types, reason = "no type implements it: it only words the error of two methods")]
pub trait OpensOwnSocket: Intent {}

impl<I: Intent> Conn<I> {
    /// Does not compile; use [`ReplicaSet::listen`](crate::ReplicaSet::listen).
    #[doc(hidden)]
    pub fn notifications_stream(&mut self)
    where
        I: OpensOwnSocket,
    {
    }

    /// Does not compile: use [`Conn::cancel_handle`] to cancel a statement.
    #[doc(hidden)]
    pub fn cancel_token(&self)
    where
        I: OpensOwnSocket,
    {
    }
}
