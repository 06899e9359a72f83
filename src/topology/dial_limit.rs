//! How long a monitor lets a new session take.
//!
//! The time that the last one took is the best guess, and a few times that much tells a slow way from a node that hangs.
//! But ways become slower and servers busier. A limit that only successes change would keep a monitor
//! from ever succeeding again, so each attempt that times out doubles it, up to what any session may take.

use std::time::Duration;

/// The limit of a monitor's next attempt to open a session.
#[derive(Debug, Clone, Default)]
pub(crate) struct DialLimit {
    /// How long the last session took to open.
    took: Option<Duration>,
    /// Attempts in a row that timed out since.
    timed_out: u32,
}

/// A new session may take this many times as long as the last one: over a long way it takes many round trips, and
/// the probe's timeout alone would call such a node lost.
const SLACK: u32 = 3;

impl DialLimit {
    /// Returns the limit of the next attempt, between a probe's timeout and the longest that any session may take.
    pub(crate) fn next(&self, probe_timeout: Duration, longest: Duration) -> Duration {
        let Some(took) = self.took else { return longest };
        let limit = took.saturating_mul(SLACK).max(probe_timeout);
        limit.saturating_mul(2_u32.saturating_pow(self.timed_out)).min(longest)
    }

    /// Notes a session that was opened.
    pub(crate) fn on_open(&mut self, took: Duration) {
        *self = Self { took: Some(took), timed_out: 0 };
    }

    /// Notes an attempt that reached its limit.
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

    /// The limit grew on success only, so a node to which the way had become slower was lost for good.
    #[test]
    fn the_limit_doubles_with_each_timeout_and_a_session_takes_it_back() {
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
    fn a_configured_limit_below_the_probe_s_is_kept() {
        let mut limit = DialLimit::default();
        limit.on_open(Duration::from_secs(1));
        assert_eq!(limit.next(PROBE, Duration::from_millis(100)), Duration::from_millis(100));
    }
}
