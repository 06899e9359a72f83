//! A session that was given up, until the server has ended it.
//!
//! A dropped future leaves a statement that runs on at the server and holds its locks, and a socket that is merely
//! closed leaves it there as well: the server looks at it only when it has something to send. So whatever is given up
//! is cancelled, by a request on a connection of its own, again and again until the session has ended. Its room in the pool is
//! taken until then: the bound of the pool is one for the server, too.
//!
//! If the server does not answer, that lasts until its monitor calls the node lost, or keepalive ends the socket.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::timeout;

use super::Shared;
use super::gate::Pass;
use super::lease::Slot;
use crate::backoff::Backoff;
use crate::error::SqlState;
use crate::stats::NodeStats;
use crate::wire::{Cancel, WireState};

/// How long an answer that is still owed may take before its statement is cancelled.
///
/// The rest of a result whose first row was enough comes within this; a statement whose future was dropped may run on.
const GRACE: Duration = Duration::from_millis(20);

/// The same for a node that is far away or slow.
const GRACE_FAR: Duration = Duration::from_millis(250);

/// Over a long way even an answer that was given at once takes longer.
fn grace(stats: &NodeStats) -> Duration {
    (stats.latency.average().unwrap_or_default() * 2).clamp(GRACE, GRACE_FAR)
}

/// How long a caller waits for the end of an abandoned statement of its transaction, before the session is given up.
const CANCELLED: Duration = Duration::from_secs(1);

/// Waits between two cancel requests for one session: the first one may come before its statement has begun.
fn repeats() -> Backoff {
    let (first, longest) = (Duration::from_millis(50), Duration::from_secs(2));
    Backoff::new(first, longest).and_then(|backoff| backoff.with_jitter(0.5)).expect("a valid schedule")
}

impl Slot {
    /// Gives the session up, and what it is doing at the server.
    pub(super) fn give_up(&self) {
        let link = self.link();
        if link.give_up() {
            let (wire, token) = (Arc::clone(link.wire()), link.cancel_token());
            self.shared().runtime().spawn(cancel(Arc::clone(self.shared()), wire, token));
        }
    }

    /// Brings a session to an end that is over, or not fit for a next user, and keeps its room until then.
    pub(super) fn finish(self, pass: Pass) {
        let ending = Ending::new(self.shared());
        let runtime = self.shared().runtime();
        runtime.spawn(async move {
            let mut slot = self;
            let wire = Arc::clone(slot.link().wire());
            // What its user asked for last may not have gone out yet.
            while slot.link().is_called() && !slot.link().is_closed() && !wire.has_pending() {
                yield_now().await;
            }
            if !slot.link().is_closed() && wire.has_pending() {
                // The connection goes back when its statement has ended, so that the next user need not wait for it.
                let _ = timeout(grace(&slot.shared().stats), wire.drained()).await;
            }
            if !slot.is_settled() {
                slot.reset().await;
            }
            if !slot.is_settled() {
                slot.give_up();
                wire.ended().await;
            }
            drop(slot);
            drop(pass);
            drop(ending);
        });
    }

    /// Cancels a statement whose future was dropped, if it does not end within a moment; whether the session can go on.
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
        // Only a request that is known to have arrived cannot end a later statement.
        timeout(CANCELLED, cancelled).await.is_ok() && wire.sqlstate() == Some(SqlState::QUERY_CANCELED)
    }
}

/// Asks the server to cancel what a session is doing, until the session has ended.
async fn cancel(shared: Arc<Shared>, wire: Arc<WireState>, token: Cancel) {
    let mut waits = repeats().delays();
    while !wire.is_ended() {
        if wire.is_at_work() {
            tokio::select! {
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
    // It has no answer, and what became of it shows on the session.
    let _ = shared.dialer.cancel(token).await;
}

/// Counts a session as one that has not ended.
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
