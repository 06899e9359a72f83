//! The time limit for a monitor's new session.
//!
//! The time of the last one is the best guess, and a few times that much tells a slow path from a node that hangs.
//! But network paths become slower and servers busier. If only successes changed the limit, a monitor might never
//! succeed again. So each attempt that times out doubles the limit, up to the maximum for any session.

use std::time::Duration;

/// The limit of a monitor's next attempt to open a session.
#[derive(Debug, Clone, Default)]
pub(crate) struct DialLimit {
    /// Time that the last session took to open.
    took: Option<Duration>,
    /// Consecutive attempts that have timed out since.
    timed_out: u32,
}

/// Multiple of the last session's time that a new session may take.
///
/// Over a long path, a session takes many round trips. With the probe's timeout alone, such a node would be marked
/// down.
const SLACK: u32 = 3;

impl DialLimit {
    /// Returns the next attempt's limit, from a probe's timeout to `longest`.
    pub(crate) fn next(&self, probe_timeout: Duration, longest: Duration) -> Duration {
        let Some(took) = self.took else { return longest };
        let limit = took.saturating_mul(SLACK).max(probe_timeout);
        limit.saturating_mul(2_u32.saturating_pow(self.timed_out)).min(longest)
    }

    /// Records the time that a session took to open.
    pub(crate) fn on_open(&mut self, took: Duration) {
        *self = Self { took: Some(took), timed_out: 0 };
    }

    /// Records an attempt that reached its limit.
    pub(crate) fn on_timeout(&mut self) {
        self.timed_out = self.timed_out.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE: Duration = Duration::from_millis(300);
    const LONGEST: Duration = Duration::from_secs(2);

    fn millis(limit: &DialLimit) -> u128 {
        limit.next(PROBE, LONGEST).as_millis()
    }

    #[test]
    fn the_first_attempt_may_take_as_long_as_any() {
        assert_eq!(DialLimit::default().next(PROBE, LONGEST), LONGEST);
    }

    /// The limit grew on success only, so a node with a slower path stayed down for good.
    #[test]
    fn the_limit_doubles_with_each_timeout_and_follows_the_next_session() {
        let mut limit = DialLimit::default();
        limit.on_open(Duration::from_millis(10));
        let mut limits = vec![millis(&limit)];
        for _ in 0..4 {
            limit.on_timeout();
            limits.push(millis(&limit));
        }
        assert_eq!(limits, [300, 600, 1200, 2000, 2000]);
        limit.on_open(Duration::from_millis(400));
        assert_eq!(millis(&limit), 1200);
        limit.on_open(Duration::from_millis(10));
        assert_eq!(millis(&limit), 300);
    }

    #[test]
    fn a_connect_timeout_below_the_probe_timeout_is_kept() {
        let mut limit = DialLimit::default();
        limit.on_open(Duration::from_secs(1));
        assert_eq!(limit.next(PROBE, Duration::from_millis(100)), Duration::from_millis(100));
    }
}
