//! Ends a transaction on a connection whose bytes no tap sees.
//!
//! The server is asked instead, which takes a round trip:
//!
//! * Before the COMMIT, if a statement of the transaction has failed. The server answers the COMMIT of a failed
//!   transaction with a silent ROLLBACK.
//! * After a failed COMMIT, if the session goes on. Only then did the server certainly not commit.

use diesel::result::{DatabaseErrorKind, Error, QueryResult};
use diesel_async::{AnsiTransactionManager, SimpleAsyncConnection, TransactionManager};

use super::commit::TransactionGuard;
use crate::Intent;
use crate::error::{OutcomeUnknown, TransactionFailed};

/// A statement that fails in a failed transaction.
const PING: &str = "SELECT 1";

impl<I: Intent> TransactionGuard<'_, I> {
    /// Commits, and verifies that the server did.
    pub(super) async fn commit_untapped(&mut self) -> QueryResult<()> {
        let outermost = self.is_outermost();
        match self.bare().batch_execute(PING).await {
            Ok(()) => {}
            // Nothing was sent to the server.
            Err(error) if is_of_connection(&error) => return Err(error),
            Err(_) => {
                self.rollback().await;
                return Err(TransactionFailed { sqlstate: None }.into());
            }
        }
        match AnsiTransactionManager::commit_transaction(self.bare()).await {
            Err(_) if outermost && self.bare().batch_execute(PING).await.is_err() => {
                self.make_unusable();
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
