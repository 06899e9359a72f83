//! A connection that is handed out, and the way it is returned.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;

use super::gate::Pass;
use super::{Pooled, Shared};
use crate::wire::{Leftover, SessionKind, WireConnection};

/// A connection with its room in the pool.
///
/// When it is dropped, it goes to the first caller in the queue.
pub(super) struct Slot {
    /// Always `Some`, until it is put back.
    pooled: Option<Pooled>,
    shared: Arc<Shared>,
}

impl Slot {
    pub(super) fn new(pooled: Pooled, shared: &Arc<Shared>) -> Self {
        Self { pooled: Some(pooled), shared: Arc::clone(shared) }
    }

    /// Returns the connection without checking the queue.
    pub(super) fn put_back(mut self) {
        self.pooled = None;
    }

    /// Returns `true` if the session is fit for the next user, or has ended.
    pub(super) fn is_fit_or_ended(&mut self) -> bool {
        let kind = self.shared.kind;
        let resets = self.shared.settings.reset_sessions;
        self.pooled.as_mut().is_none_or(|pooled| {
            let is_reusable = pooled.is_reusable(kind)
                && !pooled.link.is_called()
                && !(resets && pooled.link.wire().leftover() != Leftover::None);
            is_reusable || pooled.link.wire().is_ended()
        })
    }

    /// Returns `true` if its session goes on, apart from changed settings.
    pub(super) fn is_reusable(&mut self, kind: SessionKind) -> bool {
        self.pooled.as_mut().is_some_and(|pooled| pooled.is_reusable(kind))
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn link(&self) -> &WireConnection {
        &self.pooled.as_ref().expect("a slot has its connection until it is put back").link
    }

    pub(super) fn link_mut(&mut self) -> &mut WireConnection {
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

/// A connection that is handed out, and is returned when it is dropped.
pub(crate) struct Lease {
    /// Always `Some`, until it is dropped.
    ///
    /// The connection is returned before the next caller may pass the gate.
    held: Option<(Slot, Pass)>,
    /// A permit for a read that falls back to the primary.
    permit: Option<OwnedSemaphorePermit>,
}

impl Lease {
    pub(super) fn new(slot: Slot, pass: Pass) -> Self {
        slot.shared.leased.fetch_add(1, Ordering::AcqRel);
        Self { held: Some((slot, pass)), permit: None }
    }

    /// Holds a permit as long as the connection is handed out.
    pub(crate) fn with_permit(mut self, permit: OwnedSemaphorePermit) -> Self {
        self.permit = Some(permit);
        self
    }

    /// Abandons the session, and cancels its statement at the server.
    pub(crate) fn give_up(&self) {
        self.slot().give_up();
    }

    /// Cancels a statement whose future was dropped.
    ///
    /// The next statement need not wait for it then.
    ///
    /// The statement first gets a moment to end by itself. Returns `false` if the session cannot go on.
    ///
    /// # Cancel safety
    ///
    /// The statement may be cancelled, and then the session has no next user.
    pub(crate) async fn cancel_abandoned(&self) -> bool {
        self.slot().cancel_abandoned().await
    }

    pub(super) fn slot(&self) -> &Slot {
        &self.held.as_ref().expect("a lease has its connection until it is dropped").0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some((mut slot, pass)) = self.held.take() else { return };
        slot.shared.leased.fetch_sub(1, Ordering::AcqRel);
        // This comes before the check of the session, which then sees any cancel request that was sent.
        slot.link().lending().end_checkout();
        if slot.is_fit_or_ended() {
            // In this order, so that the next caller past the gate finds the connection.
            drop(slot);
            drop(pass);
        } else {
            slot.finish(pass);
        }
    }
}

impl Deref for Lease {
    type Target = WireConnection;

    fn deref(&self) -> &WireConnection {
        self.slot().link()
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut WireConnection {
        self.held.as_mut().expect("a lease has its connection until it is dropped").0.link_mut()
    }
}
