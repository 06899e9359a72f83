//! The entrance to a pool: as many callers at once as it may have connections, first come, first served.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Callers that are past the gate hold a connection, or wait for one that is made or comes back.
///
/// A store of idle connections alone is not fair: a caller that returns its connection and asks again takes it before
/// the callers that wait have woken up. Tokio's semaphore gives what is returned to the first in its queue.
#[derive(Debug)]
pub(super) struct Gate {
    places: Arc<Semaphore>,
}

/// A place past the gate, until it is dropped: after its connection went back, so that the next caller finds it.
pub(super) type Pass = OwnedSemaphorePermit;

impl Gate {
    pub(super) fn new(places: u32) -> Self {
        Self { places: Arc::new(Semaphore::new(places as usize)) }
    }

    /// Enters, unless there is a queue.
    pub(super) fn try_enter(&self) -> Option<Pass> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Enters at the end of the queue.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves the queue.
    pub(super) async fn enter(&self) -> Pass {
        Arc::clone(&self.places).acquire_owned().await.expect("nothing closes a gate")
    }
}
