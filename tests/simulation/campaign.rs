//! Many schedules, on several threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use pointsman::testkit::simulation::Defect;

use crate::run::{Stats, Violation, run};
use crate::schedule::Schedule;

/// The outcome of many schedules.
#[derive(Debug, Default)]
pub(crate) struct Campaign {
    pub(crate) runs: u64,
    pub(crate) took: Duration,
    pub(crate) operations: usize,
    pub(crate) written: usize,
    pub(crate) unknown: usize,
    pub(crate) failed: usize,
    /// The longest time until a set was healthy, in virtual milliseconds.
    pub(crate) healthy_after: u128,
    /// The seeds with a violation, in ascending order.
    pub(crate) violations: Vec<(u64, Violation)>,
}

impl Campaign {
    /// Runs the schedules of some seeds; at most up to the first violation if `ends_early`.
    pub(crate) fn run(from: u64, seeds: u64, defect: Option<Defect>, ends_early: bool) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (next, campaign, began) = (AtomicU64::new(from), Mutex::new(Self::default()), SystemTime::now());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= from + seeds {
                            return;
                        }
                        let outcome = run(&Schedule::draw(seed), defect);
                        let is_violated = outcome.is_err();
                        campaign.lock().expect("no panic").add(seed, outcome);
                        if is_violated && ends_early {
                            next.store(from + seeds, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let mut campaign = campaign.into_inner().expect("no panic");
        campaign.violations.sort_by_key(|(seed, _)| *seed);
        campaign.took = began.elapsed().unwrap_or_default();
        campaign
    }

    fn add(&mut self, seed: u64, outcome: Result<Stats, Violation>) {
        self.runs += 1;
        match outcome {
            Ok(stats) => {
                self.operations += stats.operations;
                self.written += stats.written;
                self.unknown += stats.unknown;
                self.failed += stats.failed;
                self.healthy_after = self.healthy_after.max(stats.healthy_after);
            }
            Err(violation) => self.violations.push((seed, violation)),
        }
    }

    /// Returns the schedules per second.
    pub(crate) fn rate(&self) -> f64 {
        self.runs as f64 / self.took.as_secs_f64().max(0.001)
    }
}
