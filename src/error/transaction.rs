//! Transactions with an unknown outcome, and those that failed.

use std::error::Error as StdError;

use super::SqlState;

/// A COMMIT whose answer never came, or after which the commit may not be durable.
///
/// The transaction may have been committed, so running it again may apply it twice. If that matters, find out, with an
/// idempotency key or with [`ReplicaSet::resolve`](crate::ReplicaSet::resolve) if the transaction's id is known.
///
/// [`Conn::transaction`](crate::Conn::transaction) returns errors of the caller's type, made from Diesel's. This error
/// is inside `QueryBuilderError` there, and [`find`](Self::find) extracts it. ([`pointsman::Error`](crate::Error),
/// which [`run_write`](crate::ReplicaSet::run_write) can return, has it as a variant.)
///
/// ```
/// use pointsman::OutcomeUnknown;
///
/// let error = diesel::result::Error::from(OutcomeUnknown::default());
/// assert!(OutcomeUnknown::find(&error).is_some());
/// assert!(OutcomeUnknown::find(&diesel::result::Error::NotFound).is_none());
/// ```
#[derive(Debug, Clone, Default, thiserror::Error)]
#[error("{}", self.message())]
#[non_exhaustive]
pub struct OutcomeUnknown {
    /// Name of the node that received the COMMIT.
    pub node: Option<String>,
    /// SQLSTATE of the server's last error, if it sent one.
    pub sqlstate: Option<SqlState>,
    /// Input for [`ReplicaSet::resolve`](crate::ReplicaSet::resolve).
    ///
    /// It is `None` if it was not recorded before the COMMIT.
    pub in_doubt: Option<super::InDoubt>,
    /// `true` if the server committed without waiting for its synchronous standby.
    ///
    /// With synchronous replication a COMMIT waits for its standby. If the wait is cancelled (`pg_cancel_backend`,
    /// `statement_timeout`, a shutdown), the transaction is visible on the primary, and a failover may still lose it.
    pub committed_locally: bool,
}

impl OutcomeUnknown {
    fn message(&self) -> String {
        let node = self.node.as_deref().unwrap_or("the primary");
        if self.committed_locally {
            format!(
                "{node} carried the transaction out, but did not wait for its synchronous standby: a failover may lose it"
            )
        } else {
            format!(
                "the connection to {node} was lost during COMMIT: the transaction may or may not have been carried out"
            )
        }
    }

    /// Returns the first one in an error and its chain of causes.
    pub fn find<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e Self> {
        find(error)
    }
}

/// A function returned `Ok` although a statement of its transaction had failed.
///
/// The server answers the COMMIT of such a transaction with a silent ROLLBACK, and a driver that ignores the status
/// reports success. Here it was rolled back, and this error reports that.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "a statement of the transaction had failed{}, so nothing was committed: return its error from the transaction, or run it in a nested one",
    .sqlstate.map(|code| format!(" (SQLSTATE {code})")).unwrap_or_default()
)]
#[non_exhaustive]
pub struct TransactionFailed {
    /// The code of the error that failed the transaction.
    ///
    /// The errors of later statements are its consequences.
    pub sqlstate: Option<SqlState>,
}

impl TransactionFailed {
    /// Returns the first one in an error and its chain of causes.
    ///
    /// ```
    /// use pointsman::TransactionFailed;
    /// assert!(TransactionFailed::find(&diesel::result::Error::NotFound).is_none());
    /// ```
    pub fn find<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e Self> {
        find(error)
    }
}

fn find<'e, T: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // A transparent variant returns the source of its content, not the content itself.
        let held: Option<&(dyn StdError + 'static)> = match error.downcast_ref() {
            Some(super::Error::OutcomeUnknown(unknown)) => Some(unknown),
            Some(super::Error::TransactionFailed(failed)) => Some(failed),
            Some(super::Error::Query(error)) => Some(error),
            _ => None,
        };
        if held.is_some() {
            next = held;
            continue;
        }
        // Diesel's error prints these, but does not return them as its source.
        if let Some(diesel::result::Error::QueryBuilderError(inner)) = error.downcast_ref()
            && let Some(found) = inner.downcast_ref()
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}

impl From<OutcomeUnknown> for diesel::result::Error {
    fn from(unknown: OutcomeUnknown) -> Self {
        Self::QueryBuilderError(Box::new(unknown))
    }
}

impl From<TransactionFailed> for diesel::result::Error {
    fn from(failed: TransactionFailed) -> Self {
        Self::QueryBuilderError(Box::new(failed))
    }
}
