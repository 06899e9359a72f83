//! The entrance to a pool: as many callers at once as it may have connections, first come, first served.

use tokio::sync::OwnedSemaphorePermit;

use crate::limit::Limit;

/// Callers that are past the gate hold a connection, or wait for one that is made or comes back.
///
/// A store of idle connections alone is not fair: a caller that returns its connection and asks again takes it before
/// the callers that wait have woken up. Tokio's semaphore gives what is returned to the first in its queue.
///
/// It outlives its pool: connections of a pool that was retired count against the one that replaced it.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    places: Limit,
}

/// What a caller does that finds others waiting, or all connections in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queueing {
    /// Waits for its turn.
    Join,
    /// Turns back.
    Refuse,
}

/// A place past the gate, until it is dropped: after its connection went back, so that the next caller finds it.
pub(super) type Pass = OwnedSemaphorePermit;

impl Gate {
    pub(crate) fn new(places: u32) -> Self {
        Self { places: Limit::new(places) }
    }

    /// Lets as many callers through at once from now on, those that are through included.
    pub(crate) fn resize(&self, places: u32) {
        self.places.resize(places);
    }

    /// Returns `true` if no caller gets through for now.
    pub(super) fn is_shut(&self) -> bool {
        self.places.semaphore().available_permits() == 0
    }

    /// Enters, unless there is a queue.
    pub(super) fn try_enter(&self) -> Option<Pass> {
        self.places.try_acquire()
    }

    /// Enters at the end of the queue.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves the queue.
    pub(super) async fn enter(&self) -> Pass {
        self.places.acquire().await.expect("nothing closes a gate")
    }
}
