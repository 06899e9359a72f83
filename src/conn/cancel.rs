//! Cancels the statement of a connection from another task.

use std::fmt;
use std::sync::Arc;

use super::Conn;
use crate::Intent;
use crate::error::CancelError;
use crate::pool::{Canceller, Request};

/// Cancels the statement that a [`Conn`] is running, from another task.
///
/// It is made with [`Conn::cancel_handle`], and is valid for that checkout alone. It keeps neither the connection nor
/// its set alive, and does nothing once the `Conn` was dropped. A late request never reaches the next user of the
/// session.
#[derive(Clone)]
pub struct CancelHandle {
    node: Arc<str>,
    /// `None` for a connection that the caller opened.
    canceller: Option<Canceller>,
}

impl<I: Intent> Conn<I> {
    /// Returns a handle that cancels the statement running on this connection.
    ///
    /// `AsyncPgConnection::cancel_token` cannot be used here, because it does not know how the connection was dialled.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use pointsman::prelude::*;
    ///
    /// # async fn example(set: pointsman::ReplicaSet) -> Result<(), pointsman::Error> {
    /// let conn = set.write().await?;
    /// let handle = conn.cancel_handle();
    /// tokio::spawn(async move {
    ///     tokio::time::sleep(Duration::from_secs(30)).await;
    ///     // An error says that the connection went back, or has ended, or that the server cannot be reached.
    ///     let _ = handle.cancel().await;
    /// });
    /// // Fails with SQLSTATE 57014 after 30 seconds.
    /// diesel::sql_query("CALL close_the_books()").execute(&conn).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle { node: self.node().into(), canceller: self.inner.source.canceller() }
    }
}

impl CancelHandle {
    /// Asks the server to cancel the running statement.
    ///
    /// The request uses a new connection to the same address, with the TLS settings and time limits of the pool.
    /// PostgreSQL sends no answer to it. If the request is in time, the statement fails with SQLSTATE 57014
    /// ([`Conn::last_sqlstate`]) and an open transaction can only be rolled back. The `Conn` itself stays usable. A
    /// late request may cancel the next statement *of this `Conn`*, so its session is not used again after the `Conn`
    /// was dropped.
    ///
    /// If no statement runs, nothing is sent, and the session stays in its pool.
    ///
    /// # Errors
    ///
    /// [`CancelError::Returned`] after the `Conn` was dropped, [`CancelError::Ended`] if its session is over,
    /// [`CancelError::Unmanaged`] if the caller opened the connection, and [`CancelError::Connect`] if the server is
    /// unreachable. Only in the last case may the request have been sent.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the request may have been sent or not.
    pub async fn cancel(&self) -> Result<(), CancelError> {
        let Some(canceller) = &self.canceller else { return Err(CancelError::Unmanaged) };
        match canceller.cancel().await {
            Request::Sent | Request::Idle => Ok(()),
            Request::Returned => Err(CancelError::Returned),
            Request::Ended => Err(CancelError::Ended { node: self.node.as_ref().to_owned() }),
            Request::Failed(source) => {
                Err(CancelError::Connect { node: self.node.as_ref().to_owned(), source })
            }
        }
    }
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelHandle").field("node", &self.node).finish_non_exhaustive()
    }
}
