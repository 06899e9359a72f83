//! How long the reads on a node take, as its 99th percentile.
//!
//! The estimate moves a little up with each read that is longer than it, and a ninety-ninth of that down with each that
//! is shorter; it comes to rest where one read in a hundred is longer. It needs one number and no lock.
//!
//! Source: Q. Ma, S. Muthukrishnan, M. Sandler, "Frugal Streaming for Estimating Quantiles", 2013.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The 99th percentile of recent reads.
#[derive(Debug, Default)]
pub(crate) struct ReadTimes {
    /// In nanoseconds; 0 until the first read.
    estimate: AtomicU64,
    reads: AtomicU64,
}

/// By how much a longer read raises the estimate. A larger step follows a change faster and swings more.
const STEP_UP: f64 = 0.05;

/// 99 shorter reads take back what one longer read added.
const STEP_DOWN: f64 = STEP_UP / 99.0;

/// Before so many reads the estimate says nothing.
const ENOUGH: u64 = 50;

impl ReadTimes {
    /// Adds a read that was answered.
    pub(crate) fn record(&self, took: Duration) {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let sample = took.as_nanos().max(1) as f64;
        // Two threads may record at once and lose one read: an estimate bears that.
        let old = f64::from_bits(self.estimate.load(Ordering::Relaxed));
        let new = match old {
            // The first reads are slow ones, over new connections; the estimate comes down from there.
            0.0 => sample,
            old if sample > old => old * (1.0 + STEP_UP),
            old => old * (1.0 - STEP_DOWN),
        };
        self.estimate.store(new.to_bits(), Ordering::Relaxed);
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    /// The estimate, once there were enough reads.
    pub(crate) fn p99(&self) -> Option<Duration> {
        if self.reads.load(Ordering::Relaxed) < ENOUGH {
            return None;
        }
        Some(Duration::from_secs_f64(f64::from_bits(self.estimate.load(Ordering::Relaxed)) / 1e9))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_the_percentile_of_a_steady_load() {
        let times = ReadTimes::default();
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            // One to a hundred milliseconds, all alike: 99 in a hundred take less than 99 ms.
            times.record(Duration::from_secs_f64(0.001 + 0.099 * rng.f64()));
        }
        let p99 = times.p99().expect("enough reads").as_secs_f64();
        assert!((0.080..0.130).contains(&p99), "{p99}");
    }

    #[test]
    fn it_says_nothing_before_there_were_enough_reads() {
        let times = ReadTimes::default();
        for _ in 0..ENOUGH - 1 {
            times.record(Duration::from_millis(1));
            assert_eq!(times.p99(), None);
        }
        times.record(Duration::from_millis(1));
        assert!(times.p99().is_some());
    }
}
