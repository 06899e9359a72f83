//! Signs that a node's monitor is alive: a promise that the monitor renews.
//!
//! The state of the nodes is only as good as the monitors that keep it up to date. A monitor can end silently,
//! because its tokio runtime was shut down or no thread drives it. So after each probe, the monitor promises the
//! latest time of its next result. A broken promise makes the whole state stale.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The last promise of a node's monitor, and its last probe.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    origin: Instant,
    /// Microseconds from the origin to the end of the promise.
    ///
    /// [`NEVER`] before the first promise, 0 when the monitor has ended.
    until: AtomicU64,
    /// Microseconds from the origin to the last result; [`NEVER`] at first.
    result: AtomicU64,
}

const NEVER: u64 = u64::MAX;

impl Default for Heartbeat {
    fn default() -> Self {
        Self { origin: Instant::now(), until: AtomicU64::new(NEVER), result: AtomicU64::new(NEVER) }
    }
}

impl Heartbeat {
    /// Promises a result by this instant.
    pub(crate) fn promise(&self, until: Instant) {
        self.until.store(self.micros(until), Ordering::Release);
    }

    /// Records that the monitor ended without its owner's request.
    pub(crate) fn forsake(&self) {
        self.until.store(0, Ordering::Release);
    }

    /// Records a result, good or bad.
    pub(crate) fn on_result(&self, now: Instant) {
        self.result.store(self.micros(now), Ordering::Release);
    }

    /// Returns `true` if the monitor has ended, or its result is overdue.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.micros(now) > self.until.load(Ordering::Acquire)
    }

    /// Returns the time since the last result.
    pub(crate) fn age(&self, now: Instant) -> Option<Duration> {
        match self.result.load(Ordering::Acquire) {
            NEVER => None,
            result => Some(Duration::from_micros(self.micros(now).saturating_sub(result))),
        }
    }

    fn micros(&self, at: Instant) -> u64 {
        // One more than 0, because 0 marks the end of the monitor.
        let micros = at.saturating_duration_since(self.origin).as_micros().saturating_add(1);
        u64::try_from(micros).unwrap_or(NEVER - 1).min(NEVER - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_node_is_overdue_when_a_promise_was_broken_and_not_before() {
        let heartbeat = Heartbeat::default();
        let now = heartbeat.origin;
        assert!(!heartbeat.is_overdue(now + secs(60)), "no monitor has begun yet");
        assert_eq!(heartbeat.age(now), None);
        heartbeat.promise(now + secs(3));
        assert!(!heartbeat.is_overdue(now + secs(3)));
        assert!(heartbeat.is_overdue(now + secs(4)));
        // A process that was suspended catches up by itself.
        heartbeat.on_result(now + secs(5));
        heartbeat.promise(now + secs(8));
        assert!(!heartbeat.is_overdue(now + secs(6)));
        assert_eq!(heartbeat.age(now + secs(6)), Some(secs(1)));
    }

    #[test]
    fn a_monitor_that_has_ended_is_noticed_at_once_until_another_one_begins() {
        let heartbeat = Heartbeat::default();
        heartbeat.promise(heartbeat.origin + secs(3));
        heartbeat.forsake();
        assert!(heartbeat.is_overdue(heartbeat.origin));
        heartbeat.promise(heartbeat.origin + secs(3));
        assert!(!heartbeat.is_overdue(heartbeat.origin));
    }
}
