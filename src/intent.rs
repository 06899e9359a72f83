//! The intent of a connection, as a type.
//!
//! An intent is a type without values, used only as the parameter of [`Conn<I>`](crate::Conn). Any node may serve
//! [`Read`], and only the primary serves [`Write`]. There are exactly two: [`Intent`] is sealed, so that no third one
//! can claim other rights.

use std::fmt;

#[expect(unnameable_types, reason = "it seals the trait, so no other crate may name it")]
mod sealed {
    /// Keeps [`Intent`](super::Intent) closed.
    // The message of `Intent` appears only if it is a bound, not for an `impl` of it.
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
/// A [`Conn<Read>`](crate::Conn) runs only [`ReadOnly`](crate::ReadOnly) statements, by its type. The server adds a
/// second guarantee: every session of a read pool has `default_transaction_read_only=on`, also on the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {}

/// The intent to write: served by the primary alone.
///
/// A [`Conn<Write>`](crate::Conn) runs every statement, also reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {}

/// The intent of a connection: [`Read`] or [`Write`].
///
/// The trait is sealed:
///
/// ```compile_fail,E0277
/// enum Admin {}
/// impl pointsman::Intent for Admin {
///     const KIND: pointsman::IntentKind = pointsman::IntentKind::Write;
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an intent: there are only `Read` and `Write`",
    label = "neither `Read` nor `Write`",
    note = "the intents are sealed, because a third one would have no pool to be served from"
)]
pub trait Intent: sealed::Sealed + Send + Sync + Sized + 'static {
    /// The intent as a value, for decisions and messages at run time.
    ///
    /// ```
    /// use pointsman::{Intent, IntentKind, Read, Write};
    /// assert_eq!((Read::KIND, Write::KIND), (IntentKind::Read, IntentKind::Write));
    /// ```
    const KIND: IntentKind;
}

impl Intent for Read {
    const KIND: IntentKind = IntentKind::Read;
}

impl Intent for Write {
    const KIND: IntentKind = IntentKind::Write;
}

/// An intent as a value, as in [`Intent::KIND`] and in errors.
///
/// ```
/// assert_eq!(pointsman::IntentKind::Read.to_string(), "read");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IntentKind {
    /// The intent of [`Read`].
    Read,
    /// The intent of [`Write`].
    Write,
}

impl IntentKind {
    /// Returns the intent in lower case, as logs and metrics spell it.
    ///
    /// ```
    /// assert_eq!(pointsman::IntentKind::Write.as_str(), "write");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl fmt::Display for IntentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The intents that may write: [`Write`] alone.
///
/// It is the bound for a method that writes, in a trait that is generic over the intent. Put it on the *method*, so
/// that the compiler can explain in plain words why a call is wrong:
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
pub trait Writable: Intent {}

impl Writable for Write {}
