//! Which errors prove that the failed operation had no effect.
//!
//! A caller may run an operation again if the first run changed nothing. Only an error that proves that counts: a lost
//! connection proves nothing about a statement that was sent on it.

use diesel::result::DatabaseErrorKind::{ReadOnlyTransaction, SerializationFailure};
use diesel::result::Error as DieselError;

use super::{CancelError, CheckoutError, Error, ListenError, OutcomeUnknown, TransactionFailed};

/// Returns `true` if Diesel's error proves that the failed operation had no effect.
///
/// The operation is one statement, or one transaction. The result is `true` if
///
/// * the server could not serialize the transaction with others (SQLSTATE 40001), and rolled it back;
/// * the server is read only (25006), for example because it was demoted a moment ago;
/// * a [`TransactionFailed`] is inside.
///
/// Every other error is `false`. Diesel does not show if a statement was sent before its connection was lost, and has
/// no kind for a deadlock: ask [`Conn::last_sqlstate`](crate::Conn::last_sqlstate) and
/// [`SqlState::is_transient_conflict`](crate::SqlState::is_transient_conflict) for that one.
///
/// ```
/// use diesel::result::Error;
/// use pointsman::{OutcomeUnknown, is_safe_to_retry};
///
/// assert!(!is_safe_to_retry(&Error::from(OutcomeUnknown::default())));
/// assert!(!is_safe_to_retry(&Error::NotFound));
/// ```
pub fn is_safe_to_retry(error: &DieselError) -> bool {
    match error {
        DieselError::DatabaseError(kind, _) => matches!(kind, SerializationFailure | ReadOnlyTransaction),
        DieselError::QueryBuilderError(source) => source.is::<TransactionFailed>(),
        _ => false,
    }
}

impl Error {
    /// Returns `true` if nothing of the failed operation can have taken effect.
    ///
    /// The caller may then run the operation again. Another run need not succeed: a closed set, for example, stays
    /// closed. `false` means that an effect is possible, or is not excluded. For [`Query`](Self::Query), see
    /// [`is_safe_to_retry`].
    ///
    /// A transaction has one more rule, which the error alone does not show. After every error of
    /// [`Conn::transaction`](crate::Conn::transaction) but [`OutcomeUnknown`], the transaction was rolled back.
    ///
    /// ```
    /// use pointsman::prelude::*;
    /// use pointsman::{Error, ReplicaSet};
    ///
    /// diesel::table! { users (id) { id -> Integer, name -> Text, } }
    ///
    /// async fn add(set: &ReplicaSet, name: &str) -> Result<usize, Error> {
    ///     let conn = set.write().await?;
    ///     Ok(diesel::insert_into(users::table).values(users::name.eq(name)).execute(&conn).await?)
    /// }
    ///
    /// async fn add_with_one_retry(set: &ReplicaSet, name: &str) -> Result<usize, Error> {
    ///     match add(set, name).await {
    ///         Err(error) if error.is_safe_to_retry() => add(set, name).await,
    ///         result => result,
    ///     }
    /// }
    /// ```
    pub fn is_safe_to_retry(&self) -> bool {
        match self {
            // Nothing was sent to a server.
            Self::Config(_) | Self::Node { .. } => true,
            Self::Checkout(error) => error.is_safe_to_retry(),
            Self::Cancel(error) => error.is_safe_to_retry(),
            Self::Listen(error) => error.is_safe_to_retry(),
            Self::Query(error) => is_safe_to_retry(error),
            Self::OutcomeUnknown(error) => error.is_safe_to_retry(),
            Self::TransactionFailed(error) => error.is_safe_to_retry(),
            // The set is closed, and takes no new callers.
            Self::Close { .. } => false,
        }
    }
}

impl CheckoutError {
    /// Returns `true`: nothing was sent to a server on behalf of the caller.
    pub const fn is_safe_to_retry(&self) -> bool {
        true
    }
}

impl ListenError {
    /// Returns `true`: nothing of the call takes effect if it fails.
    pub const fn is_safe_to_retry(&self) -> bool {
        true
    }
}

impl CancelError {
    /// Returns `true` if no request can have been sent.
    ///
    /// A request that was sent may arrive late, and a second one would then cancel the next statement.
    pub const fn is_safe_to_retry(&self) -> bool {
        !matches!(self, Self::Connect { .. })
    }
}

impl OutcomeUnknown {
    /// Returns `false`: the transaction may have been committed.
    pub const fn is_safe_to_retry(&self) -> bool {
        false
    }
}

impl TransactionFailed {
    /// Returns `true`: the transaction was rolled back.
    pub const fn is_safe_to_retry(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use diesel::result::DatabaseErrorKind as Kind;

    use super::*;
    use crate::Config;
    use crate::error::ConnectError;

    fn query(kind: Kind) -> Error {
        DieselError::DatabaseError(kind, Box::new("a message".to_owned())).into()
    }

    fn unreachable() -> ConnectError {
        ConnectError::Unreachable(io::ErrorKind::ConnectionRefused.into())
    }

    #[test]
    fn only_an_operation_without_effect_is_safe_to_retry() {
        let waited = Duration::from_secs(1);
        let node = || "db-1".to_owned();
        let no_config = Config::builder().build().expect_err("there is no primary");
        for (error, safe) in [
            (Error::from(no_config), true),
            (Error::Node { node: node(), source: unreachable() }, true),
            (CheckoutError::NoPrimary { waited, failures: Vec::new() }.into(), true),
            (CheckoutError::Closed.into(), true),
            (ListenError::NoChannels.into(), true),
            (CancelError::Returned.into(), true),
            (CancelError::Ended { node: node() }.into(), true),
            (CancelError::Connect { node: node(), source: unreachable() }.into(), false),
            (query(Kind::SerializationFailure), true),
            (query(Kind::ReadOnlyTransaction), true),
            (query(Kind::UniqueViolation), false),
            // A deadlock is among these.
            (query(Kind::Unknown), false),
            (query(Kind::UnableToSendCommand), false),
            (query(Kind::ClosedConnection), false),
            (DieselError::NotFound.into(), false),
            (DieselError::BrokenTransactionManager.into(), false),
            (DieselError::QueryBuilderError("a defect".into()).into(), false),
            (DieselError::from(TransactionFailed { sqlstate: None }).into(), true),
            (DieselError::from(OutcomeUnknown::default()).into(), false),
            (TransactionFailed { sqlstate: None }.into(), true),
            (OutcomeUnknown::default().into(), false),
            (Error::Close { connections: 1, after: waited }, false),
        ] {
            assert_eq!(error.is_safe_to_retry(), safe, "{error:?}");
        }
    }

    #[test]
    fn an_error_inside_diesels_error_is_found() {
        assert!(is_safe_to_retry(&TransactionFailed { sqlstate: None }.into()));
        assert!(!is_safe_to_retry(&OutcomeUnknown::default().into()));
    }
}
