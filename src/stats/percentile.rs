//! How long a server takes to answer a read, as its 99th percentile.
//!
//! The estimate moves a little up with each read that is longer than it, and a ninety-ninth of that down with each that
//! is shorter; it comes to rest where one read in a hundred is longer. It needs one number and no lock.
//!
//! Steps of that size need ten thousand reads to come down from seconds to milliseconds. So the estimate begins at the
//! median of the first reads, where a few slow ones, over new connections, do not count; and while all reads are
//! shorter than it, the steps down grow.
//!
//! Source: Q. Ma, S. Muthukrishnan, M. Sandler, "Frugal Streaming for Estimating Quantiles", 2013.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// The 99th percentile of recent reads.
#[derive(Debug, Default)]
pub(crate) struct P99Estimator {
    /// The first reads, in nanoseconds.
    first: [AtomicU64; FIRST],
    /// In nanoseconds; 0 until there were as many reads as it begins with.
    estimate: AtomicU64,
    reads: AtomicU64,
    /// Reads since the last one that was longer than the estimate.
    shorter: AtomicU32,
}

/// Reads whose median the estimate begins at. It is too low, and rises fast, because half of all reads are longer.
const FIRST: usize = 15;

/// By how much a longer read raises the estimate. A larger step follows a change faster and swings more.
const STEP_UP: f64 = 0.05;

/// 99 shorter reads take back what one longer read added.
const STEP_DOWN: f64 = STEP_UP / 99.0;

/// Shorter reads in a row from which the steps down grow; where the estimate is right, one row in 150 is this long.
const ROW: u32 = 500;

/// Reads before which the estimate says nothing.
const ENOUGH: u64 = 50;

impl P99Estimator {
    /// Adds a read that was answered; zero is none.
    pub(crate) fn record(&self, took: Duration) {
        if took.is_zero() {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let sample = took.as_nanos() as f64;
        // Two threads may record at once and lose one read: an estimate bears that.
        let number = usize::try_from(self.reads.fetch_add(1, Ordering::Relaxed)).unwrap_or(usize::MAX);
        if let Some(place) = self.first.get(number) {
            place.store(sample.to_bits(), Ordering::Relaxed);
            if number + 1 == FIRST {
                self.estimate.store(self.median().to_bits(), Ordering::Relaxed);
            }
            return;
        }
        let old = f64::from_bits(self.estimate.load(Ordering::Relaxed));
        let new = if sample > old {
            self.shorter.store(0, Ordering::Relaxed);
            old * (1.0 + STEP_UP)
        } else {
            let row = self.shorter.fetch_add(1, Ordering::Relaxed);
            let growth = f64::from(row.saturating_sub(ROW)) / f64::from(ROW) * 10.0;
            old * (1.0 - STEP_DOWN * (1.0 + growth))
        };
        // Never below the read that was just recorded, or a long row would step over it.
        self.estimate.store(new.max(sample.min(old)).to_bits(), Ordering::Relaxed);
    }

    fn median(&self) -> f64 {
        let mut first = [0.0; FIRST];
        for (place, read) in first.iter_mut().zip(&self.first) {
            *place = f64::from_bits(read.load(Ordering::Relaxed));
        }
        first.sort_by(f64::total_cmp);
        first[FIRST / 2].max(1.0)
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
        let times = P99Estimator::default();
        let mut rng = fastrand::Rng::with_seed(1);
        for i in 0..40_000 {
            // One to a hundred milliseconds, all alike: 99 in a hundred take less than 99 ms.
            times.record(Duration::from_secs_f64(0.001 + 0.099 * rng.f64()));
            let p99 = times.p99().map_or(0.1, |p99| p99.as_secs_f64());
            assert!(i < 10_000 || (0.080..0.130).contains(&p99), "{p99} after {i}");
        }
    }

    #[test]
    fn it_says_nothing_before_there_were_enough_reads() {
        let times = P99Estimator::default();
        for _ in 0..ENOUGH - 1 {
            times.record(Duration::from_millis(1));
            assert_eq!(times.p99(), None);
        }
        times.record(Duration::from_millis(1));
        assert!(times.p99().is_some());
    }

    /// Reads of a millisecond after slow ones of 5 s, until the estimate is below 10 ms.
    fn reads_until_usable(times: &P99Estimator) -> usize {
        let usable = || times.p99().is_some_and(|p99| p99 < Duration::from_millis(10));
        (0..100_000)
            .take_while(|_| {
                times.record(Duration::from_millis(1));
                !usable()
            })
            .count()
            + 1
    }

    /// One first read of 5 s was the estimate for the next 10,930 reads, and nothing was hedged.
    #[test]
    fn one_slow_read_at_the_start_does_not_decide() {
        for slow in 1..=5 {
            let times = P99Estimator::default();
            for _ in 0..slow {
                times.record(Duration::from_secs(5));
            }
            let reads = reads_until_usable(&times);
            assert!(reads <= 100, "usable after {reads} reads, {slow} of them slow");
        }
    }

    /// The same after an incident in which a node was slow for long.
    #[test]
    fn it_comes_down_after_a_slow_hour() {
        let times = P99Estimator::default();
        for _ in 0..1_000 {
            times.record(Duration::from_secs(5));
        }
        let reads = reads_until_usable(&times);
        assert!(reads <= 1_500, "usable after {reads} reads");
    }
}
