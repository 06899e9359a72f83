//! What a connection may be used for, as a type.
//!
//! An intent is a type that has no values: it exists only as the parameter of
//! [`Conn<I>`](crate::Conn). [`Read`] may be served by any node, [`Write`] only by the primary.
//! There are exactly two; [`Intent`] is sealed, so that no third one can claim rights of its own.

use crate::Conn;

mod sealed {
    /// Keeps [`Intent`](super::Intent) closed.
    // What `Intent` says itself is said only where it is a bound, not to who implements it.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` is not an intent: there are only `Read` and `Write`",
        label = "neither `Read` nor `Write`",
        note = "the intents are sealed, because a third one would have no pool to be served from"
    )]
    pub trait Sealed {}
    impl Sealed for super::Read {}
    impl Sealed for super::Write {}
}

/// The intent to read: served by a replica, or by the primary.
///
/// A [`Conn<Read>`](crate::Conn) runs nothing but [`ReadOnly`](crate::ReadOnly) statements. That
/// is a promise of the type; the server keeps a second one: every session of a read pool has
/// `default_transaction_read_only=on`, also on the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {}

/// The intent to write: served by the primary alone.
///
/// A [`Conn<Write>`](crate::Conn) runs every statement, reads among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {}

/// The intent of a connection: [`Read`] or [`Write`].
///
/// The trait is sealed:
///
/// ```compile_fail,E0277
/// enum Admin {}
/// impl pointsman::Intent for Admin {
///     const NAME: &'static str = "admin";
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an intent: there are only `Read` and `Write`",
    label = "neither `Read` nor `Write`",
    note = "the intents are sealed, because a third one would have no pool to be served from"
)]
pub trait Intent: sealed::Sealed + Send + Sync + Sized + 'static {
    /// The intent in lower case, as logs and metrics spell it.
    ///
    /// ```
    /// use pointsman::{Intent, Read, Write};
    /// assert_eq!((Read::NAME, Write::NAME), ("read", "write"));
    /// ```
    const NAME: &'static str;
}

impl Intent for Read {
    const NAME: &'static str = "read";
}

impl Intent for Write {
    const NAME: &'static str = "write";
}

/// The intents that may write: [`Write`] alone.
///
/// It is the bound for a method that writes, in a trait that is generic over the intent. It
/// stands on the *method*, so that the compiler can say in plain words what is wrong with a call:
///
/// ```
/// use pointsman::prelude::*;
///
/// trait Accounts<I: Intent> {
///     async fn count(&self) -> QueryResult<i64>;
///     async fn close(&self, id: i32) -> QueryResult<usize>
///     where
///         I: Writable;
/// }
/// # diesel::table! { accounts (id) { id -> Integer, } }
///
/// impl<I: Intent> Accounts<I> for Conn<I> {
///     async fn count(&self) -> QueryResult<i64> {
///         accounts::table.count().get_result(self.as_read()).await
///     }
///     async fn close(&self, id: i32) -> QueryResult<usize>
///     where
///         I: Writable,
///     {
///         diesel::delete(accounts::table.find(id)).execute(self.as_write()).await
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "this method writes, and a `Conn<Read>` cannot",
    label = "the intent here is `{Self}`, not `Write`",
    note = "a `Conn<Read>` may be served by a replica: check out a `Conn<Write>` with `ReplicaSet::write`",
    note = "in a repository, put `where I: Writable` on the method, in the trait and in the impl; in a generic function, bound the intent: `I: Writable`"
)]
pub trait Writable: Intent {
    /// Witnesses that a connection of this intent is a `Conn<Write>`.
    #[doc(hidden)]
    fn witness(conn: &Conn<Self>) -> &Conn<Write>;

    /// Witnesses the same of an exclusive reference.
    #[doc(hidden)]
    fn witness_mut(conn: &mut Conn<Self>) -> &mut Conn<Write>;
}

impl Writable for Write {
    fn witness(conn: &Conn<Self>) -> &Conn<Write> {
        conn
    }

    fn witness_mut(conn: &mut Conn<Self>) -> &mut Conn<Write> {
        conn
    }
}
