//! Outlier ejection and slow start of a node that comes back.
//!
//! During the slow start, the read limit grows in steps (1, 2, 4, … reads at once). So cold caches and a queue of
//! connects don't bring the node down again. A node that keeps failing is *ejected*: it gets no reads for a time
//! that doubles with each failure. It is forgiven once it has stayed up. Neither rule ever empties the set, because
//! such a node still serves reads that no other node can.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::ReadSettings;

/// The failures of a node, and its slow start.
#[derive(Debug, Clone, Default)]
pub(crate) struct OutlierEjection {
    /// Failures in short succession.
    failures: u32,
    returned: Option<Instant>,
    ejected_until: Option<Instant>,
}

/// Doublings of the read limit in slow start: from one read to a usual pool size.
const SLOW_START_STEPS: u32 = 5;

impl OutlierEjection {
    /// Records that the node went down.
    ///
    /// Earlier failures are forgiven if the node was up for long enough since its return. Time spent down does not
    /// count.
    pub(crate) fn on_down(&mut self, settings: &ReadSettings, now: Instant) {
        let held_out = self
            .returned
            .is_some_and(|returned| now.duration_since(returned) >= settings.max_ejection_time * 2);
        self.failures = if held_out { 1 } else { self.failures.saturating_add(1) };
    }

    /// Records that the node came back.
    pub(crate) fn on_up(&mut self, settings: &ReadSettings, now: Instant) {
        // The first failure causes no ejection, because a restart is no reason to distrust a node.
        let ejection = match self.failures {
            0 | 1 => Duration::ZERO,
            n => settings
                .base_ejection_time
                .saturating_mul(2_u32.saturating_pow(n - 2))
                .min(settings.max_ejection_time),
        };
        self.returned = Some(now);
        self.ejected_until = Some(now + ejection);
    }

    /// Returns `true` if the node is ejected for now.
    pub(crate) fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }

    /// Returns the limit of concurrent reads for now; `None` is no limit.
    pub(crate) fn read_limit(&self, settings: &ReadSettings, now: Instant) -> Option<u32> {
        let begin = self.ejected_until?;
        let elapsed = now.saturating_duration_since(begin);
        if elapsed >= settings.slow_start {
            return None;
        }
        let step = elapsed.as_secs_f64() / settings.slow_start.as_secs_f64() * f64::from(SLOW_START_STEPS);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and SLOW_START_STEPS"
        )]
        Some(1 << (step as u32).min(SLOW_START_STEPS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> ReadSettings {
        ReadSettings {
            base_ejection_time: Duration::from_secs(1),
            max_ejection_time: Duration::from_secs(30),
            slow_start: Duration::from_secs(2),
            ..ReadSettings::default()
        }
    }

    #[test]
    fn ejection_doubles_with_each_repeat_and_is_forgiven() {
        let settings = settings();
        let mut now = Instant::now();
        let mut ejection = OutlierEjection::default();
        let mut ejections = Vec::new();
        for _ in 0..8 {
            ejection.on_down(&settings, now);
            ejection.on_up(&settings, now);
            ejections.push(ejection.ejected_until.map_or(0, |until| until.duration_since(now).as_secs()));
            now += Duration::from_secs(1);
        }
        assert_eq!(ejections, [0, 1, 2, 4, 8, 16, 30, 30]);
        now += Duration::from_secs(120);
        ejection.on_down(&settings, now);
        ejection.on_up(&settings, now);
        assert!(!ejection.is_ejected(now));
    }

    /// Time spent down counted as time spent up, so the node was never ejected.
    #[test]
    fn time_spent_down_does_not_shorten_the_next_ejection() {
        let settings = settings();
        let mut now = Instant::now();
        let mut ejection = OutlierEjection::default();
        let mut ejections = Vec::new();
        for _ in 0..5 {
            ejection.on_down(&settings, now);
            now += Duration::from_secs(600);
            ejection.on_up(&settings, now);
            ejections.push(ejection.ejected_until.map_or(0, |until| until.duration_since(now).as_secs()));
            now += Duration::from_secs(20);
        }
        assert_eq!(ejections, [0, 1, 2, 4, 8]);
    }

    #[test]
    fn the_read_limit_doubles_during_slow_start_until_there_is_none() {
        let settings = settings();
        let now = Instant::now();
        let mut ejection = OutlierEjection::default();
        assert_eq!(ejection.read_limit(&settings, now), None, "a node that was never down has no limit");
        ejection.on_down(&settings, now);
        ejection.on_up(&settings, now);
        let limits: Vec<_> =
            (0..6).map(|i| ejection.read_limit(&settings, now + Duration::from_millis(400 * i))).collect();
        assert_eq!(limits, [Some(1), Some(2), Some(4), Some(8), Some(16), None]);
    }
}
