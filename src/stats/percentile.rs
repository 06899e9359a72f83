//! The 99th percentile of a server's read times.
//!
//! A read longer than the estimate moves the estimate up a little, and a shorter one moves it down by a
//! ninety-ninth of that. So the estimate comes to rest where one read in a hundred is longer. It needs one number
//! and no lock.
//!
//! Steps of that size need ten thousand reads to come down from seconds to milliseconds. So the estimate begins at
//! the median of the first reads, where a few slow ones over new connections do not count. And the steps down grow
//! while all reads are shorter than the estimate.
//!
//! Source: Q. Ma, S. Muthukrishnan, M. Sandler, "Frugal Streaming for Estimating Quantiles", 2013.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// The 99th percentile of recent reads.
#[derive(Debug, Default)]
pub(crate) struct P99Estimator {
    /// The first reads, in nanoseconds.
    first: [AtomicU64; FIRST],
    /// In nanoseconds; 0 until the first reads are complete.
    estimate: AtomicU64,
    reads: AtomicU64,
    /// Reads since the last one that was longer than the estimate.
    shorter: AtomicU32,
}

/// Reads whose median is the first estimate.
///
/// The first estimate is too low, and rises fast, because half of all reads are longer.
const FIRST: usize = 15;

/// Proportion by which a longer read raises the estimate.
///
/// A larger step follows a change faster and varies more.
const STEP_UP: f64 = 0.05;

/// Proportion of a step down: 99 shorter reads cancel one longer read.
const STEP_DOWN: f64 = STEP_UP / 99.0;

/// Consecutive shorter reads after which the steps down grow.
///
/// With a correct estimate, one row in 150 is this long.
const ROW: u32 = 500;

/// Reads before which there is no estimate.
const ENOUGH: u64 = 50;

impl P99Estimator {
    /// Records an answered read; a time of zero is ignored.
    pub(crate) fn record(&self, took: Duration) {
        if took.is_zero() {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let sample = took.as_nanos() as f64;
        // Two threads may record at once and lose one read: an estimate tolerates that.
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
        // Never below the read that was just recorded, or a long row would overshoot.
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

    /// Returns the estimate, once there were enough reads.
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
            // One to a hundred milliseconds, evenly spread: 99 in a hundred take less than 99 ms.
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

    /// Counts 1 ms reads after slow ones of 5 s, until the estimate is usable.
    ///
    /// An estimate below 10 ms is usable.
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

    /// One first read of 5 s fixed the estimate for the next 10,930 reads, and no read was hedged.
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

    /// The same after an incident in which a node was slow for a long time.
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
