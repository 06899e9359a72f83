//! The errors of this crate, one type per operation.
//!
//! Every message includes the remedy, and none contains a credential. Errors are classified by SQLSTATE and kind, never
//! by text. `is_safe_to_retry` tells which of them prove that the failed operation had no effect.
//!
//! * [`ConnectError`]: one attempt to open a session at one node
//! * [`CheckoutError`]: [`ReplicaSet::read`](crate::ReplicaSet::read) and [`write`](crate::ReplicaSet::write)
//! * [`CausalError`]: a causal token that no node could satisfy
//! * [`CancelError`]: a statement that could not be cancelled
//! * [`ListenError`], for [`ReplicaSet::listen`](crate::ReplicaSet::listen)
//! * [`OutcomeUnknown`]: a COMMIT whose answer never came
//! * [`TransactionFailed`]: a COMMIT that the server would have turned into a ROLLBACK
//! * [`Error`]: all of them in one type, for a program that handles them alike

use std::time::Duration;

pub use self::cancel::CancelError;
pub use self::causal::CausalError;
pub use self::checkout::{CheckoutError, NodeFailure, ShownIdentifier};
pub use self::connect::ConnectError;
pub use self::in_doubt::InDoubt;
pub use self::listen::{InvalidChannel, ListenError};
pub(crate) use self::proof::Proof;
pub use self::retry::is_safe_to_retry;
pub use self::sqlstate::SqlState;
pub use self::transaction::{OutcomeUnknown, TransactionFailed};
use crate::config::ConfigError;

mod cancel;
mod causal;
mod checkout;
mod connect;
mod in_doubt;
mod listen;
mod proof;
mod retry;
mod sqlstate;
mod transaction;

/// Any error of this crate.
///
/// `From<diesel::result::Error>` extracts an [`OutcomeUnknown`] from Diesel's error, in which
/// [`Conn::transaction`](crate::Conn::transaction) had to wrap it, so that a `match` finds it.
///
/// ```
/// use pointsman::Error;
///
/// let error = Error::from(diesel::result::Error::NotFound);
/// assert!(matches!(error, Error::Query(_)));
/// assert!(!error.is_safe_to_retry());
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A node could not be prepared, because of a certificate file, for example.
    #[error("node {node} cannot be used")]
    Node {
        /// The node's name.
        node: String,
        /// The cause.
        source: ConnectError,
    },
    /// No connection was available.
    ///
    /// Nothing was sent to a server, so the call is safe to repeat.
    #[error(transparent)]
    Checkout(#[from] CheckoutError),
    /// A statement could not be cancelled.
    #[error(transparent)]
    Cancel(#[from] CancelError),
    /// Listening on channels failed.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A statement failed.
    #[error(transparent)]
    Query(diesel::result::Error),
    /// A COMMIT was sent but not answered, so it may have succeeded.
    ///
    /// Not safe to repeat.
    #[error(transparent)]
    OutcomeUnknown(#[from] OutcomeUnknown),
    /// A transaction went on after a failed statement, so it was rolled back.
    #[error(transparent)]
    TransactionFailed(#[from] TransactionFailed),
    /// Not all connections were returned within the time limit of `close`.
    #[error(
        "{connections} connections were still in use {after:?} after `close`: end what holds them, or raise `timeouts.shutdown`"
    )]
    Close {
        /// Connections that were not returned.
        connections: u32,
        /// Time waited for them.
        after: Duration,
    },
}

impl From<diesel::result::Error> for Error {
    fn from(error: diesel::result::Error) -> Self {
        let diesel::result::Error::QueryBuilderError(source) = error else { return Self::Query(error) };
        match source.downcast::<OutcomeUnknown>() {
            Ok(unknown) => Self::OutcomeUnknown(*unknown),
            Err(source) => match source.downcast::<TransactionFailed>() {
                Ok(failed) => Self::TransactionFailed(*failed),
                Err(source) => Self::Query(diesel::result::Error::QueryBuilderError(source)),
            },
        }
    }
}
