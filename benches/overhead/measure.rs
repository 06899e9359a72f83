//! Measures contenders side by side.
//!
//! They take turns in short batches, and each round draws their order again, so that other work on the machine affects
//! them all. Each batch is compared with the baseline's in the same round. The report has the median of those ratios,
//! and its 95 % confidence interval. The interval comes from order statistics: it assumes no distribution, but
//! independent rounds.
//!
//! The processor time of the benchmark's process is measured as well. It covers the client's work for an operation,
//! without the server and without waiting, so other programs on the machine hardly change it.

use std::time::Duration;

use futures_util::future::{BoxFuture, try_join_all};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tokio::time::Instant;

use super::setup::Result;

/// Runs this many operations one after the other, and returns the time of each.
pub(crate) type Batch = Box<dyn Fn(usize) -> BoxFuture<'static, Result<Vec<Duration>>> + Send + Sync>;

/// One way to do the operation of a case.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) batch: Batch,
}

/// Contenders for the same operation; the first one is the baseline.
pub(crate) struct Case {
    pub(crate) name: String,
    /// Number of concurrent tasks.
    pub(crate) tasks: usize,
    /// Operations of each task before the next contender has its turn.
    pub(crate) batch: usize,
    /// Number of counted items in one operation.
    pub(crate) per_operation: u32,
    pub(crate) contenders: Vec<Contender>,
}

/// The measurements of one contender.
#[derive(serde::Serialize)]
pub(crate) struct Measured {
    pub(crate) case: String,
    pub(crate) contender: &'static str,
    pub(crate) median_ns: f64,
    pub(crate) p99_ns: f64,
    pub(crate) per_second: f64,
    /// The time it takes, as a multiple of the baseline's.
    pub(crate) ratio: f64,
    /// The 95 % confidence interval of the ratio.
    pub(crate) interval: (f64, f64),
    /// The client's processor time for one operation.
    pub(crate) cpu_ns: f64,
    /// Its 99th percentile, as a multiple of the baseline's.
    pub(crate) p99_ratio: f64,
}

/// Times each of this many runs of an expression that may fail.
macro_rules! timed {
    ($n:expr, $operation:expr) => {{
        let mut times = Vec::with_capacity($n);
        for _ in 0..$n {
            let began = tokio::time::Instant::now();
            $operation;
            times.push(began.elapsed());
        }
        Ok(times)
    }};
}
pub(crate) use timed;

impl Case {
    /// Lets the contenders take turns for this many rounds.
    pub(crate) async fn run(self, rounds: usize) -> Result<Vec<Measured>> {
        let n = self.contenders.len();
        let mut times: Vec<Vec<Duration>> = vec![Vec::new(); n];
        let mut walls: Vec<Vec<f64>> = vec![Vec::new(); n];
        let mut cpu = vec![Duration::ZERO; n];
        let mut order: Vec<usize> = (0..n).collect();
        // The first round opens connections and prepares statements; it doesn't count.
        for round in 0..=rounds {
            fastrand::shuffle(&mut order);
            for &i in &order {
                let (began, worked) = (Instant::now(), processor_time()?);
                let tasks = (0..self.tasks).map(|_| tokio::spawn((self.contenders[i].batch)(self.batch)));
                let done = try_join_all(tasks).await?;
                let (wall, worked) = (began.elapsed(), processor_time()? - worked);
                let done = done.into_iter().collect::<Result<Vec<_>>>()?;
                if round > 0 {
                    walls[i].push(wall.as_secs_f64());
                    cpu[i] += worked;
                    times[i].extend(done.into_iter().flatten());
                }
            }
        }
        let count = f64::from(self.per_operation);
        let nanos = |times: &[Duration]| {
            let mut nanos: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e9 / count).collect();
            nanos.sort_unstable_by(f64::total_cmp);
            nanos
        };
        let p99_of_baseline = at(&nanos(&times[0]), 0.99);
        let measured = |(i, contender): (usize, &Contender)| {
            let nanos = nanos(&times[i]);
            let mut ratios: Vec<f64> =
                walls[i].iter().zip(&walls[0]).map(|(wall, base)| wall / base).collect();
            ratios.sort_unstable_by(f64::total_cmp);
            #[expect(clippy::cast_precision_loss, reason = "counts of some thousands")]
            let operations = nanos.len() as f64;
            Measured {
                case: self.name.clone(),
                contender: contender.name,
                median_ns: at(&nanos, 0.5),
                p99_ns: at(&nanos, 0.99),
                per_second: operations * count / walls[i].iter().sum::<f64>(),
                ratio: at(&ratios, 0.5),
                interval: interval_of_median(&ratios),
                cpu_ns: cpu[i].as_secs_f64() * 1e9 / (operations * count),
                p99_ratio: at(&nanos, 0.99) / p99_of_baseline,
            }
        };
        Ok(self.contenders.iter().enumerate().map(measured).collect())
    }
}

fn processor_time() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(micros.try_into()?))
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank within the slice"
)]
fn at(sorted: &[f64], quantile: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * quantile).round() as usize]
}

#[expect(clippy::cast_precision_loss, reason = "a count of rounds")]
fn interval_of_median(sorted: &[f64]) -> (f64, f64) {
    let half = 0.98 / (sorted.len() as f64).sqrt();
    (at(sorted, (0.5 - half).max(0.0)), at(sorted, (0.5 + half).min(1.0)))
}
