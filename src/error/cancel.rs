//! The errors of cancelling a statement.

use super::ConnectError;

/// The reason why [`cancel`](crate::CancelHandle::cancel) sent no request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CancelError {
    /// The `Conn` was dropped.
    ///
    /// Its statement has ended, or the pool is cancelling it. The session may have another user.
    #[error("the connection went back to its pool, so there is nothing of it to cancel")]
    Returned,
    /// The session is over, so its statement has failed already.
    #[error("the session at {node} has ended, so there is nothing to cancel")]
    Ended {
        /// The node's name.
        node: String,
    },
    /// The caller opened the connection, so only the caller can reach its server.
    ///
    /// See [`Conn::borrow_from`](crate::Conn::borrow_from). Take the connection's `cancel_token` before it is borrowed.
    #[error(
        "the connection was opened by its user, so how to reach its server is not known: use its `cancel_token`"
    )]
    Unmanaged,
    /// The request could not be sent, and the statement continues.
    #[error("{node} could not be asked to cancel a statement, which goes on")]
    Connect {
        /// The node's name.
        node: String,
        /// The cause.
        source: ConnectError,
    },
}
