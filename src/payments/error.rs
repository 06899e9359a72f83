//! What can go wrong in the repository.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{BadCursor, Entity, IdempotencyKey, Provider, ProviderId, Status};
use crate::{OutcomeUnknown, TransactionFailed};

/// What a method of the repositories can fail with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such thing.
    ///
    /// On a replica, it may not have arrived there yet: read it where it was written, or wait for it.
    #[error("there is no {entity} {id}")]
    NotFound {
        /// What was asked for.
        entity: Entity,
        /// Its id.
        id: Uuid,
    },
    /// Another content is already there under the same name. Nothing was stored.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// A status only goes forward. Nothing was changed.
    #[error("a transaction that is {from} cannot become {to}: a status only goes forward")]
    IllegalTransition {
        /// The status that it has.
        from: Status,
        /// The status that was asked for.
        to: Status,
    },
    /// What a settlement has summed stays as it was. Nothing was changed.
    #[error("transaction {id} was settled with {settlement}: record another transaction the other way")]
    Settled {
        /// The transaction.
        id: Uuid,
        /// The settlement that it is part of.
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
    /// A COMMIT was sent and its answer never came: it may have been carried out.
    ///
    /// [`record_callback`](super::TransactionRepository::record_callback) is safe to repeat, which also tells.
    #[error(transparent)]
    OutcomeUnknown(OutcomeUnknown),
    /// The transaction went on after one of its statements had failed; it was rolled back.
    #[error(transparent)]
    TransactionFailed(TransactionFailed),
}

/// What is already there under the same name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// The provider used an idempotency key a second time, for something else.
    #[error("{provider} already used the idempotency key {key} for another request: use a new key")]
    IdempotencyKey {
        /// Who sent it.
        provider: Provider,
        /// The key.
        key: IdempotencyKey,
    },
    /// The provider's id belongs to another transaction.
    #[error("{provider} already has a transaction {provider_id}: use each id once, or send the same content")]
    ProviderId {
        /// Who sent it.
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
            // `From` makes the three above; a fourth would be a statement's error as well.
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
