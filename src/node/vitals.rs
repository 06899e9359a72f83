//! What a node's connections notice about it, between two looks of its monitor.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use tokio::sync::Notify;

use super::latency::Latency;

/// Signs of life and of trouble, gathered without asking the node anything.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    /// How long its answers take.
    pub(crate) latency: Latency,
    /// Read connections that are checked out, or waited for.
    pub(crate) in_flight: AtomicU32,
    /// Read connections that were handed out since the start.
    pub(crate) reads: AtomicU64,
    /// Write connections that were handed out since the start.
    pub(crate) writes: AtomicU64,
    /// Probes that its monitor began since the start.
    pub(crate) probes: AtomicU64,
    suspected: AtomicBool,
    wake: Notify,
}

impl Vitals {
    /// Notes a sign of trouble: the monitor looks at once, and reads go elsewhere until it has.
    ///
    /// Many signs between two looks are one.
    pub(crate) fn suspect(&self) {
        self.suspected.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Wakes the monitor for another reason than trouble.
    pub(crate) fn look(&self) {
        self.wake.notify_one();
    }

    /// Counts a read as in flight while it waits for its connection, so that those who choose meanwhile see it.
    pub(crate) fn claim(&self) -> Claim<'_> {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        Claim(self)
    }

    /// Whether there was a sign of trouble since the monitor last found the node well.
    pub(crate) fn is_suspected(&self) -> bool {
        self.suspected.load(Ordering::Acquire)
    }

    /// The monitor found the node well.
    pub(crate) fn trust(&self) {
        self.suspected.store(false, Ordering::Release);
    }

    /// Waits for a sign of trouble.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }
}

/// A read that waits for a connection.
#[derive(Debug)]
pub(crate) struct Claim<'v>(&'v Vitals);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}
