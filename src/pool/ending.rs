//! An abandoned session, until the server has ended it.
//!
//! A dropped future leaves a statement that runs on at the server and holds its locks. Closing the socket does not stop
//! it, because the server notices that only when it has something to send. So an abandoned session is cancelled by
//! requests on other connections, repeated until it has ended. Its room in the pool is taken until then, so that the
//! pool's bound holds for the server, too.
//!
//! If the server does not answer, that lasts until its monitor marks the node down, or keepalive ends the socket.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::timeout;

use super::Shared;
use super::gate::Pass;
use super::lease::Slot;
use crate::backoff::Backoff;
use crate::defect::Defect;
use crate::error::SqlState;
use crate::stats::NodeStats;
use crate::wire::{Cancel, WireState};

/// Time for a pending answer to arrive before its statement is cancelled.
///
/// The rest of a result whose first row was enough arrives within this time. A statement whose future was dropped may
/// run on.
const GRACE: Duration = Duration::from_millis(20);

/// Time for a pending answer of a node that is far away or slow.
const GRACE_FAR: Duration = Duration::from_millis(250);

/// Returns the time for a pending answer.
///
/// Over a long distance, even an immediate answer takes longer.
fn grace(stats: &NodeStats) -> Duration {
    (stats.latency.average().unwrap_or_default() * 2).clamp(GRACE, GRACE_FAR)
}

/// Longest wait for an abandoned statement's end before the session is given up.
const CANCELLED: Duration = Duration::from_secs(1);

/// Returns the waits between cancel requests.
///
/// Several are needed, because the first may arrive before its statement.
fn repeats() -> Backoff {
    let (first, longest) = (Duration::from_millis(50), Duration::from_secs(2));
    Backoff::new(first, longest).and_then(|backoff| backoff.with_jitter(0.5)).expect("a valid schedule")
}

impl Slot {
    /// Abandons the session, and cancels its statement at the server.
    pub(super) fn give_up(&self) {
        let link = self.link();
        if link.give_up() {
            let (wire, token) = (Arc::clone(link.wire()), link.cancel_token());
            self.shared().runtime().spawn(cancel(Arc::clone(self.shared()), wire, token));
        }
    }

    /// Ends a session that no later user may get, and keeps its room until then.
    pub(super) fn finish(self, pass: Pass) {
        let ending = Ending::new(self.shared());
        let runtime = self.shared().runtime();
        runtime.spawn(async move {
            let mut slot = self;
            let wire = Arc::clone(slot.link().wire());
            // The user's last request may not have been sent yet.
            while slot.link().is_called() && !slot.link().is_closed() && !wire.has_pending() {
                yield_now().await;
            }
            if !slot.link().is_closed() && wire.has_pending() {
                // The connection is returned when its statement has ended, so that the next user need not wait for it.
                let _ = timeout(grace(&slot.shared().stats), wire.drained()).await;
            }
            if !slot.is_fit_or_ended() {
                slot.reset().await;
            }
            if !slot.is_fit_or_ended() {
                slot.give_up();
                wire.ended().await;
            }
            drop(slot);
            if Defect::LeakedPermit.is_seeded() {
                pass.forget();
                return;
            }
            drop(pass);
            drop(ending);
        });
    }

    /// Cancels a statement whose future was dropped.
    ///
    /// Returns `true` if the session can go on.
    ///
    /// The statement first gets a moment to end by itself.
    pub(super) async fn cancel_abandoned(&self) -> bool {
        let link = self.link();
        let wire = link.wire();
        if !wire.has_pending() || timeout(grace(&self.shared().stats), wire.drained()).await.is_ok() {
            return true;
        }
        link.note_cancelled();
        let cancelled = async {
            request(self.shared(), link.cancel_token()).await;
            wire.drained().await;
        };
        // Only a request that is known to have arrived cannot cancel a later statement.
        timeout(CANCELLED, cancelled).await.is_ok() && wire.sqlstate() == Some(SqlState::QUERY_CANCELED)
    }
}

/// Sends cancel requests until the session has ended.
async fn cancel(shared: Arc<Shared>, wire: Arc<WireState>, token: Cancel) {
    let mut waits = repeats().delays();
    while !wire.is_ended() {
        if wire.is_at_work() {
            tokio::select! {
                biased;
                () = wire.ended() => return,
                () = request(&shared, token.clone()) => {}
            }
        }
        let _ = timeout(waits.next().unwrap_or(CANCELLED), wire.ended()).await;
    }
}

/// Sends one cancel request.
async fn request(shared: &Shared, token: Cancel) {
    let Some(_place) = shared.limits.cancels.acquire().await else { return };
    // A request has no answer, and its effect shows on the session.
    let _ = shared.dialer.cancel(token).await;
}

/// Counts a session that has not ended.
struct Ending(Arc<Shared>);

impl Ending {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.ending.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(shared))
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ending.fetch_sub(1, Ordering::AcqRel);
    }
}
