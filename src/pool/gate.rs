//! The gate of a pool: first come, first served.
//!
//! It admits as many callers as the pool may have connections.

use tokio::sync::OwnedSemaphorePermit;

use crate::limit::Limit;

/// A fair semaphore; callers past the gate hold a connection, or wait for one.
///
/// A store of idle connections alone is not fair: a caller that returns its connection and asks again takes it before
/// the waiting callers have woken up. Tokio's semaphore assigns a returned permit to the first in its queue.
///
/// The gate outlives its pool: connections of a retired pool count against the pool that replaced it.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    places: Limit,
}

/// The behaviour of a caller that finds others waiting, or all connections in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queueing {
    /// The caller waits for its turn.
    Join,
    /// The caller fails at once.
    Refuse,
}

/// A permit of the gate.
///
/// It is released after its connection was returned, so that the next caller finds the connection.
pub(super) type Pass = OwnedSemaphorePermit;

impl Gate {
    pub(crate) fn new(places: u32) -> Self {
        Self { places: Limit::new(places) }
    }

    /// Changes the number of permits, including those in use.
    pub(crate) fn resize(&self, places: u32) {
        self.places.resize(places);
    }

    /// Returns `true` if no permit is available now.
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
