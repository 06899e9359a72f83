//! The way to the bare connection, for code that takes one.

use std::ops::{Deref, DerefMut};

use diesel_async::AsyncPgConnection;

use super::Conn;
use crate::{Intent, Write};

/// The intents whose connection dereferences to [`AsyncPgConnection`]: [`Write`] alone.
///
/// diesel-async's methods work on everything that dereferences to a connection. The bound says
/// of a `Conn<Read>` in our words what the compiler would otherwise call a missing `DerefMut`.
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
#[diagnostic::on_unimplemented(
    message = "a `Conn<Read>` does not lend its bare connection, because anything could write on that",
    label = "the intent here is `{Self}`, not `Write`",
    note = "to read, run statements with Pointsman's methods: import `pointsman::prelude::*` in the place of `diesel::prelude::*` and `diesel_async::RunQueryDsl`",
    note = "to write, or for code that takes any `AsyncConnection`, check out a `Conn<Write>` with `ReplicaSet::write`"
)]
pub trait LendsBare: Intent {}

impl LendsBare for Write {}

impl<I: LendsBare> Deref for Conn<I> {
    type Target = AsyncPgConnection;

    fn deref(&self) -> &AsyncPgConnection {
        self.served.lease.conn()
    }
}

impl<I: LendsBare> DerefMut for Conn<I> {
    fn deref_mut(&mut self) -> &mut AsyncPgConnection {
        self.served.lease.conn_mut()
    }
}
