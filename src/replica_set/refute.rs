//! Refuses a causal token that cannot come from this cluster, before it is used.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::ReplicaSet;
use crate::error::CausalError;
use crate::token::CausalToken;

/// Pause before the snapshot is read again.
const PAUSE: Duration = Duration::from_millis(10);

/// Longest wait for the probes that show how far the nodes are.
///
/// A probe that was asked for is sent within 100 ms, and a healthy node answers at once.
const MAX_WAIT: Duration = Duration::from_millis(500);

impl ReplicaSet {
    /// Fails if a token is of another cluster, or its position cannot exist.
    ///
    /// A position just beyond the last probe passes, because another program may have written it since. The session
    /// judges it without a wait. A position that is far beyond waits for a probe of the monitors, which is at most ten
    /// times a second for all callers together. Without a primary, no position can be refuted.
    ///
    /// # Cancel safety
    ///
    /// Nothing is left behind.
    pub(crate) async fn refute(&self, token: &CausalToken) -> Result<(), CausalError> {
        let began = Instant::now();
        loop {
            let snapshot = self.snapshot();
            let required = match snapshot.requirement(token) {
                Ok(required) => required,
                Err(CausalError::Foreign) => return Err(CausalError::Foreign),
                // The token is genuine, and the session reports what became of its history.
                Err(_) => return Ok(()),
            };
            if snapshot.is_plausible(&required) || snapshot.primary.is_none() {
                return Ok(());
            }
            if snapshot.was_observed_since(began, required.known) {
                return Err(required.into());
            }
            if began.elapsed() > MAX_WAIT {
                return Ok(());
            }
            snapshot.wake_monitors();
            sleep(PAUSE).await;
        }
    }
}
