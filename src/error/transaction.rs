//! How a transaction can end other than well.

use std::error::Error as StdError;

use super::SqlState;

/// A COMMIT was sent, and its answer never came, or says that it may not last.
///
/// The transaction may have been carried out, so running it again may do it twice. Where it
/// matters, find out: by a key of your own, or with
/// [`ReplicaSet::resolve`](crate::ReplicaSet::resolve) where the transaction's id is known.
///
/// [`Conn::transaction`](crate::Conn::transaction) returns errors of the caller's type, made from Diesel's; this
/// one travels inside of `QueryBuilderError` and is found again with [`find`](Self::find).
/// ([`pointsman::Error`](crate::Error) and what [`run_write`](crate::ReplicaSet::run_write) returns have it as a variant.)
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
    /// Name of the node that was asked to commit.
    pub node: Option<String>,
    /// What the server said last, if it said something.
    pub sqlstate: Option<SqlState>,
    /// What [`ReplicaSet::resolve`](crate::ReplicaSet::resolve) needs; `None` where it was not noted before the COMMIT.
    pub in_doubt: Option<super::InDoubt>,
    /// The server said that it carried the transaction out, without the standby that it should have waited for.
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

    /// Looks for one in an error and the errors that caused it.
    pub fn find<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e Self> {
        find(error)
    }
}

/// A transaction's function returned `Ok` though one of the statements in it had failed.
///
/// The server answers the COMMIT of such a transaction with a silent ROLLBACK, and a driver that
/// does not look at the status reports success. Here it was rolled back, and this error says so.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "a statement of the transaction had failed{}, so nothing was committed: return its error from the transaction, or run it in a nested one",
    .sqlstate.map(|code| format!(" (SQLSTATE {code})")).unwrap_or_default()
)]
#[non_exhaustive]
pub struct TransactionFailed {
    /// The code of the error that failed the transaction; the errors of later statements are its consequences.
    pub sqlstate: Option<SqlState>,
}

impl TransactionFailed {
    /// Looks for one in an error and the errors that caused it.
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
        // A variant that prints what it holds names the cause of that, not that itself, as its source.
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
        // Diesel's error prints these, but does not name them as its source.
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
