//! The average time of a node's answers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// An exponentially weighted moving average of a node's answer times.
///
/// A slower answer moves the average by an eighth of its distance, so one slow answer does not dominate. TCP uses
/// this factor for its round-trip time (RFC 6298). A faster answer moves the average by half. A node that was slow
/// a moment ago gets few queries besides its probes, so the average must recover after few answers.
#[derive(Debug, Default)]
pub(crate) struct LatencyEwma {
    /// In nanoseconds; 0 until the first answer.
    average: AtomicU64,
}

impl LatencyEwma {
    /// Records one answer.
    pub(crate) fn record(&self, took: Duration) {
        let sample = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        // Two threads may record at once and lose one sample: an average tolerates that, and a lock would cost
        // more.
        let old = self.average.load(Ordering::Relaxed);
        let new = match old {
            0 => sample,
            old if sample < old => old / 2 + sample / 2,
            old => old - old / 8 + sample / 8,
        };
        self.average.store(new.max(1), Ordering::Relaxed);
    }

    /// Returns the average, or `None` before the first answer.
    pub(crate) fn average(&self) -> Option<Duration> {
        match self.average.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_follows_and_forgets() {
        let latency = LatencyEwma::default();
        assert_eq!(latency.average(), None);
        latency.record(Duration::from_millis(8));
        assert_eq!(latency.average(), Some(Duration::from_millis(8)));
        latency.record(Duration::from_millis(16));
        assert_eq!(latency.average(), Some(Duration::from_millis(9)));
        for _ in 0..10 {
            latency.record(Duration::from_millis(1));
        }
        assert!(latency.average().is_some_and(|average| average < Duration::from_micros(1_100)));
    }
}
