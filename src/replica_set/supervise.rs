//! Restarts monitors that have ended or stand still.
//!
//! A set that was connected on one tokio runtime can be used from another one that lives longer. Its monitors end
//! with the first runtime, and a failover would go unseen. So each checkout and each health report checks that the
//! monitors are on schedule, which costs a few loads. If they are not, new ones start on the caller's runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::{Inner, Keeper, ReplicaSet, watch};
use crate::topology::Snapshot;

/// Time for monitors to catch up by themselves.
///
/// The whole process may have been suspended.
const CATCH_UP: Duration = Duration::from_millis(200);

impl ReplicaSet {
    /// Returns `true` if the monitors keep the snapshot up to date.
    ///
    /// Otherwise restarts them.
    pub(super) fn is_up_to_date(&self, snapshot: &Snapshot, now: Instant) -> bool {
        let watched = snapshot.is_up_to_date(now);
        if !watched {
            self.revive();
        }
        watched
    }

    #[cold]
    fn revive(&self) {
        // A health report may be requested outside a runtime; the next checkout is inside one.
        let Ok(runtime) = Handle::try_current() else { return };
        if self.inner.reviving.swap(true, Ordering::AcqRel) {
            return;
        }
        let reviving = Reviving(Arc::clone(&self.inner.reviving));
        let inner = Arc::downgrade(&self.inner);
        runtime.spawn(async move {
            let _reviving = reviving;
            sleep(CATCH_UP).await;
            if let Some(inner) = inner.upgrade() {
                inner.restart_monitors();
            }
        });
    }
}

impl Inner {
    fn restart_monitors(&self) {
        // Held throughout, so that a reconfiguration happens before or after.
        let mut monitors = self.monitors.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let snapshot = self.topology.snapshot();
        if self.closed.is_cancelled() || snapshot.is_up_to_date(Instant::now()) {
            return;
        }
        tracing::warn!("the monitors had ended or stood still, and are started again");
        let config = &self.live.load().config;
        *monitors = self.topology.nodes().iter().map(|node| watch(node, &self.topology, config)).collect();
        let mut keeper = self.keeper.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if keeper.as_ref().is_some_and(Keeper::has_ended) {
            *keeper = Keeper::start(config.memory_file(), &self.topology);
        }
    }
}

/// Held while monitors are being replaced.
///
/// It is released even if the runtime that replaces them ends.
struct Reviving(Arc<AtomicBool>);

impl Drop for Reviving {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
