//! Resets a session whose user changed its settings, before the next user gets it.
//!
//! One round trip in the background restores the initial state: settings, role, advisory locks, cursors, notifications,
//! temporary tables and sequence caches. Prepared statements stay, because the driver has them cached. A session with
//! prepared statements other than the driver's own is closed.

use std::time::Duration;

use diesel_async::SimpleAsyncConnection;
use tokio::time::timeout;

use super::lease::Slot;
use crate::wire::Leftover;

/// Longest wait for a reset.
///
/// A server that needs longer hangs, and a new session costs less than the wait.
const LIMIT: Duration = Duration::from_secs(1);

impl Slot {
    /// Resets the session, if that is enough to make it fit for the next user.
    pub(super) async fn reset(&mut self) {
        let kind = self.shared().kind;
        if !self.is_reusable(kind) || self.link().wire().leftover() != Leftover::State {
            return;
        }
        let sql = self.shared().dialer.reset(kind);
        let done = timeout(LIMIT, self.link_mut().conn_mut().batch_execute(&sql)).await;
        if matches!(done, Ok(Ok(()))) {
            self.link().wire().forget_leftover();
        }
    }
}
