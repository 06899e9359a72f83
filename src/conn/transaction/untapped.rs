//! The end of a transaction on a connection whose bytes pass by no tap.
//!
//! What the tap would have seen is asked of the server, which takes a round trip: whether a statement of the transaction
//! failed (the server answers such a COMMIT with a silent ROLLBACK), and after a COMMIT that failed whether the session
//! goes on (only then did the server certainly not commit).

use diesel::result::{DatabaseErrorKind, Error, QueryResult};
use diesel_async::{AnsiTransactionManager, SimpleAsyncConnection, TransactionManager};

use super::TransactionGuard;
use crate::Intent;
use crate::error::{OutcomeUnknown, TransactionFailed};

/// A statement that fails in a transaction that has failed.
const PING: &str = "SELECT 1";

impl<I: Intent> TransactionGuard<'_, I> {
    /// Commits, and makes sure that the server did.
    pub(super) async fn commit_untapped(&mut self) -> QueryResult<()> {
        let outermost = self.is_outermost();
        match self.bare().batch_execute(PING).await {
            Ok(()) => {}
            // Nothing was asked of the server.
            Err(error) if is_of_connection(&error) => return Err(error),
            Err(_) => {
                self.rollback().await;
                return Err(TransactionFailed { sqlstate: None }.into());
            }
        }
        match AnsiTransactionManager::commit_transaction(self.bare()).await {
            Err(_) if outermost && self.bare().batch_execute(PING).await.is_err() => {
                self.poison();
                Err(OutcomeUnknown::default().into())
            }
            committed => committed,
        }
    }
}

/// Returns `true` for an error that no server sent.
fn is_of_connection(error: &Error) -> bool {
    use DatabaseErrorKind::{ClosedConnection, UnableToSendCommand};
    matches!(error, Error::DatabaseError(UnableToSendCommand | ClosedConnection, _))
}
