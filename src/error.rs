//! What can go wrong, one type per operation.
//!
//! Every message names what to do about it, and none holds a credential. Errors are told apart by
//! SQLSTATE and kind, never by text.
//!
//! * [`ConnectError`]: one attempt to open a session at one node
//! * [`CheckoutError`]: [`ReplicaSet::read`](crate::ReplicaSet::read) and [`write`](crate::ReplicaSet::write)
//! * [`CancelError`]: a statement that could not be cancelled
//! * [`ListenError`], for [`ReplicaSet::listen`](crate::ReplicaSet::listen)
//! * [`OutcomeUnknown`]: a COMMIT whose answer never came
//! * [`TransactionFailed`]: a COMMIT that the server would have turned into a ROLLBACK
//! * [`Error`]: all of them in one, for a program that doesn't tell them apart

use std::time::Duration;

pub use self::cancel::CancelError;
pub use self::checkout::{CheckoutError, NodeFailure, ShownIdentifier};
pub use self::connect::ConnectError;
pub use self::in_doubt::InDoubt;
pub use self::listen::{ChannelFault, ListenError};
pub(crate) use self::proof::Proof;
pub use self::sqlstate::SqlState;
pub use self::transaction::{OutcomeUnknown, TransactionFailed};
use crate::config::ConfigError;

mod cancel;
mod checkout;
mod connect;
mod in_doubt;
mod listen;
mod proof;
mod sqlstate;
mod transaction;

/// Any error of this crate.
///
/// `From<diesel::result::Error>` takes an [`OutcomeUnknown`] out of Diesel's error, where
/// [`Conn::transaction`](crate::Conn::transaction) had to put it, so that a `match` finds it.
///
/// ```
/// use pointsman::Error;
///
/// fn is_safe_to_repeat(error: &Error) -> bool {
///     matches!(error, Error::Checkout(_))
/// }
/// # let _ = is_safe_to_repeat;
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A node could not be prepared, because of a certificate file say.
    #[error("node {node} cannot be used")]
    Node {
        /// The node's name.
        node: String,
        /// What is wrong with it.
        source: ConnectError,
    },
    /// No connection could be had. Nothing was sent to a server: safe to repeat.
    #[error(transparent)]
    Checkout(#[from] CheckoutError),
    /// A statement could not be cancelled.
    #[error(transparent)]
    Cancel(#[from] CancelError),
    /// Channels could not be listened to.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A statement failed.
    #[error(transparent)]
    Query(diesel::result::Error),
    /// A COMMIT was sent and its answer never came: it may have been carried out. Not safe to repeat.
    #[error(transparent)]
    OutcomeUnknown(#[from] OutcomeUnknown),
    /// A transaction went on after one of its statements had failed; it was rolled back.
    #[error(transparent)]
    TransactionFailed(#[from] TransactionFailed),
    /// Closing took longer than it may.
    #[error(
        "{connections} connections were still in use {after:?} after `close`: end what holds them, or raise `timeouts.shutdown`"
    )]
    Close {
        /// How many connections were not returned.
        connections: u32,
        /// How long was waited for them.
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
