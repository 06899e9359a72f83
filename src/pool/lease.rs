//! A connection that is handed out, and how it goes back.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::gate::Pass;
use super::{Pooled, Shared};
use crate::link::Link;
use crate::node::Vitals;

/// A connection with its room in the pool; dropped, it goes back, and the first in the queue gets it.
pub(super) struct Slot {
    /// Always there, until it is put back.
    pooled: Option<Pooled>,
    shared: Arc<Shared>,
}

impl Slot {
    pub(super) fn new(pooled: Pooled, shared: &Arc<Shared>) -> Self {
        Self { pooled: Some(pooled), shared: Arc::clone(shared) }
    }

    /// Goes back without a look at the queue.
    pub(super) fn put_back(mut self) {
        self.pooled = None;
    }

    fn link(&self) -> &Link {
        &self.pooled.as_ref().expect("a slot has its connection until it is put back").link
    }

    fn link_mut(&mut self) -> &mut Link {
        &mut self.pooled.as_mut().expect("a slot has its connection until it is put back").link
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.pooled.take().is_some() {
            self.shared.on_return();
        }
    }
}

/// A connection that is handed out, and goes back when it is dropped.
pub(crate) struct Lease {
    /// Always there, until it is dropped. The connection goes back before the next caller may pass the gate.
    held: Option<(Slot, Pass)>,
    /// A place among the reads that may fall back to the primary.
    permit: Option<OwnedSemaphorePermit>,
}

/// How long an answer that is still owed may take before its statement is cancelled.
///
/// The rest of a result whose first row was enough comes within this; a statement whose future was dropped may run on.
const SETTLE: Duration = Duration::from_millis(20);

/// The same for a node that is far away or slow.
const SETTLE_FAR: Duration = Duration::from_millis(250);

/// Over a long way even an answer that was given at once takes longer.
fn settle(vitals: &Vitals) -> Duration {
    (vitals.latency.average().unwrap_or_default() * 2).clamp(SETTLE, SETTLE_FAR)
}

/// How long a cancelled statement may take to end before its connection is dropped.
const CANCELLED: Duration = Duration::from_secs(1);

impl Lease {
    pub(super) fn new(slot: Slot, pass: Pass) -> Self {
        slot.shared.leased.fetch_add(1, Ordering::AcqRel);
        Self { held: Some((slot, pass)), permit: None }
    }

    /// Holds a permit for as long as the connection is handed out.
    pub(crate) fn with_permit(mut self, permit: OwnedSemaphorePermit) -> Self {
        self.permit = Some(permit);
        self
    }

    fn slot(&self) -> &Slot {
        &self.held.as_ref().expect("a lease has its connection until it is dropped").0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some((slot, pass)) = self.held.take() else { return };
        slot.shared.leased.fetch_sub(1, Ordering::AcqRel);
        let link = slot.link();
        if link.is_over() || !link.wire().owes() {
            drop(slot);
            drop(pass);
            return;
        }
        // The connection goes back when its statement has ended, so that the next user need not wait for it.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(finish(slot, pass));
            }
            Err(_) => link.sever(),
        }
    }
}

/// Waits for what a connection still owes and gives it back; if that takes long, cancels the statement and ends it.
async fn finish(slot: Slot, pass: Pass) {
    let link = slot.link();
    let wire = link.wire();
    if timeout(settle(&slot.shared.vitals), wire.settled()).await.is_err() {
        let cancelled = async {
            // The answer tells whether it worked; an error of the attempt itself only costs the connection.
            let _ = slot.shared.dialer.cancel(link.cancel_token()).await;
            wire.settled().await;
        };
        let _ = timeout(CANCELLED, cancelled).await;
        // A cancel request has no answer. If it arrives late, it ends whatever runs on the session then, so
        // the session must have no next user.
        link.sever();
    }
    drop(slot);
    drop(pass);
}

impl Deref for Lease {
    type Target = Link;

    fn deref(&self) -> &Link {
        self.slot().link()
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Link {
        self.held.as_mut().expect("a lease has its connection until it is dropped").0.link_mut()
    }
}
