//! The errors of the repository.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{BadCursor, Entity, IdempotencyKey, Provider, ProviderId, Status};
use crate::{OutcomeUnknown, TransactionFailed};

/// The errors of the repositories' methods.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The object does not exist.
    ///
    /// On a replica, it may not have arrived yet: read from the node that was written to, or wait for replay.
    #[error("there is no {entity} {id}")]
    NotFound {
        /// The kind of object.
        entity: Entity,
        /// Its id.
        id: Uuid,
    },
    /// Other content is already stored under the same name. Nothing was stored.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// A status only moves forward. Nothing was changed.
    #[error("a transaction that is {from} cannot become {to}: a status only goes forward")]
    IllegalTransition {
        /// The present status.
        from: Status,
        /// The requested status.
        to: Status,
    },
    /// A settlement has already summed the transaction. Nothing was changed.
    #[error("transaction {id} was settled with {settlement}: record another transaction the other way")]
    Settled {
        /// The transaction.
        id: Uuid,
        /// The settlement that includes it.
        settlement: Uuid,
    },
    /// The cursor was not handed out for this list.
    #[error(transparent)]
    BadCursor(#[from] BadCursor),
    /// A time that cannot be stored. Nothing was stored.
    #[error("{0} is not between the years 0 and 9999: correct the time of the transaction")]
    TimeOutOfRange(DateTime<Utc>),
    /// A statement failed.
    #[error(transparent)]
    Query(diesel::result::Error),
    /// A COMMIT was sent and its answer never came: the server may have carried it out.
    ///
    /// [`record_callback`](super::TransactionRepository::record_callback) is safe to repeat, and its result shows the
    /// outcome.
    #[error(transparent)]
    OutcomeUnknown(OutcomeUnknown),
    /// The transaction went on after a failed statement, so it was rolled back.
    #[error(transparent)]
    TransactionFailed(TransactionFailed),
}

/// The conflicting entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// The provider used an idempotency key a second time, for other content.
    #[error("{provider} already used the idempotency key {key} for another request: use a new key")]
    IdempotencyKey {
        /// The provider.
        provider: Provider,
        /// The key.
        key: IdempotencyKey,
    },
    /// The provider's id belongs to another transaction.
    #[error("{provider} already has a transaction {provider_id}: use each id once, or send the same content")]
    ProviderId {
        /// The provider.
        provider: Provider,
        /// Its id for the transaction.
        provider_id: ProviderId,
    },
}

impl From<diesel::result::Error> for Error {
    fn from(error: diesel::result::Error) -> Self {
        match crate::Error::from(error) {
            crate::Error::OutcomeUnknown(unknown) => Self::OutcomeUnknown(unknown),
            crate::Error::TransactionFailed(failed) => Self::TransactionFailed(failed),
            crate::Error::Query(error) => Self::Query(error),
            // `From` makes the three above; a fourth would also be a statement's error.
            other => Self::Query(diesel::result::Error::QueryBuilderError(Box::new(other))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_outcome_is_found_in_diesels_error() {
        let error = Error::from(diesel::result::Error::from(OutcomeUnknown::default()));
        assert!(matches!(error, Error::OutcomeUnknown(_)), "{error:?}");
        let error = Error::from(diesel::result::Error::RollbackTransaction);
        assert!(matches!(error, Error::Query(diesel::result::Error::RollbackTransaction)), "{error:?}");
    }
}
