//! A statement could not be cancelled.

use super::ConnectError;

/// Why [`CancelHandle::cancel`](crate::conn::CancelHandle::cancel) sent no request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CancelError {
    /// The `Conn` was dropped. What it ran has ended, or is being ended by the pool; the session may have another user.
    #[error("the connection went back to its pool, so there is nothing of it to cancel")]
    Returned,
    /// The session is over, so its statement has failed already.
    #[error("the session at {node} has ended, so there is nothing to cancel")]
    Ended {
        /// The node's name.
        node: String,
    },
    /// The connection was opened by the caller, who knows how to reach its server: see
    /// [`Conn::borrow_from`](crate::Conn::borrow_from). Ask it for its `cancel_token` before it is borrowed.
    #[error(
        "the connection was opened by its user, so how to reach its server is not known: use its `cancel_token`"
    )]
    Unmanaged,
    /// The request could not be sent: the statement goes on.
    #[error("{node} could not be asked to cancel a statement, which goes on")]
    Connect {
        /// The node's name.
        node: String,
        /// What went wrong on the way.
        source: ConnectError,
    },
}
