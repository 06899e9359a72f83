//! Detects a pooler that shares the server's sessions between its clients.
//!
//! A server announces the process that serves a session. A pooler invents that number, so a session whose process has
//! another number is behind a pooler. In session mode a process belongs to one client until the client leaves. In
//! transaction and statement mode the process serves the next client after each transaction, with the settings of a
//! session, its locks and its prepared statements. Two sessions that are open together show the mode. In session mode
//! they never show the same process, and each always shows the same one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::Dialer;
use super::check::{row, send};
use super::settings::SessionKind;
use crate::error::ConnectError;
use crate::stats::NodeStats;

/// Time for which a pooler counts as one in session mode.
///
/// Its operator may change the mode.
const VALID: Duration = Duration::from_secs(60);

/// Longest wait for the second session of an examination.
///
/// A pooler in session mode makes it wait for a free process.
const SECOND_SESSION: Duration = Duration::from_millis(500);

const PROCESS: &str = "SELECT pg_catalog.pg_backend_pid()";

impl Dialer {
    /// Checks that the pooler keeps sessions apart, at most once a minute.
    ///
    /// # Errors
    ///
    /// [`ConnectError::SharedByPooler`] if it does not.
    ///
    /// # Cancel safety
    ///
    /// A dropped future closes the second session; the next attempt examines again.
    pub(super) async fn examine_pooler(
        &self,
        first: &Client,
        process: i32,
        stats: Arc<NodeStats>,
        close: CancellationToken,
    ) -> Result<(), ConnectError> {
        let mut examined = self.known.session_pooler.lock().await;
        if examined.is_some_and(|at| at.elapsed() < VALID) {
            return Ok(());
        }
        let again = process_of(first).await?;
        let second = async {
            let session = self.begin(SessionKind::Probe, stats, close).await?;
            let process = process_of(&session.client).await?;
            // The first session is asked while the second one is open.
            Ok::<_, ConnectError>((process, process_of(first).await?))
        };
        // If the second session waits for a free process, or is rejected without one, the first one's process does not
        // serve it.
        let (second, last) = match timeout(SECOND_SESSION, second).await {
            Ok(Ok(processes)) => processes,
            Ok(Err(_)) | Err(_) => (0, again),
        };
        if is_shared(&[process, again, last], second) {
            return Err(ConnectError::SharedByPooler);
        }
        tracing::debug!(node = self.node.name(), "a pooler in session mode stands before the server");
        *examined = Some(Instant::now());
        Ok(())
    }
}

async fn process_of(client: &Client) -> Result<i32, ConnectError> {
    let row = row(send(client, PROCESS).await?).await?;
    Ok(row.and_then(|row| row.get(0).and_then(|process| process.parse().ok())).unwrap_or_default())
}

/// Returns `true` if the processes of two sessions show that a pooler shares them.
fn is_shared(first: &[i32], second: i32) -> bool {
    first.iter().any(|process| *process == second || Some(process) != first.first())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_two_open_sessions_show_is_shared() {
        assert!(!is_shared(&[5, 5, 5], 6), "session mode");
        assert!(!is_shared(&[5, 5, 5], 0), "the second session had to wait");
        assert!(is_shared(&[5, 5, 5], 5), "the last one used is the next one given out");
        assert!(is_shared(&[5, 6, 5], 6), "round robin");
        assert!(is_shared(&[5, 5, 7], 6), "another client took it in between");
    }
}
