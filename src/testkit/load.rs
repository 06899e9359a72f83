//! A steady load, and its users' experience while a node fails.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::OutcomeUnknown;

/// The outcome of a write, as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It was acknowledged, so it must not be lost.
    Acknowledged,
    /// It failed, and the server is known not to have applied it.
    Failed(String),
    /// The server may or may not have applied it.
    Unknown(String),
}

impl WriteOutcome {
    /// Classifies the outcome of a write by its error.
    ///
    /// A COMMIT without an answer is unknown, wherever in the error's chain of causes it is. Any other error counts as
    /// failed, which a transaction's is, and a single statement's may not be.
    ///
    /// ```
    /// use pointsman::OutcomeUnknown;
    /// use pointsman::testkit::WriteOutcome;
    ///
    /// let unknown = pointsman::Error::from(OutcomeUnknown::default());
    /// assert!(matches!(WriteOutcome::of::<(), _>(Err(unknown)), WriteOutcome::Unknown(_)));
    /// assert_eq!(WriteOutcome::of(Ok::<_, pointsman::Error>(1)), WriteOutcome::Acknowledged);
    /// ```
    pub fn of<T, E: StdError + 'static>(outcome: Result<T, E>) -> Self {
        match outcome {
            Ok(_) => Self::Acknowledged,
            Err(error) if OutcomeUnknown::find(&error).is_some() => Self::Unknown(error.to_string()),
            Err(error) => Self::Failed(error.to_string()),
        }
    }
}

/// One operation of a load.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Sample {
    /// Its number; reads and writes are counted separately.
    pub id: u64,
    /// The scheduled start.
    pub began: Instant,
    /// The end.
    pub ended: Instant,
    /// The outcome.
    pub outcome: WriteOutcome,
}

impl Sample {
    /// Returns the time from the scheduled start to the end.
    pub fn took(&self) -> Duration {
        self.ended.duration_since(self.began)
    }

    fn succeeded(&self) -> bool {
        self.outcome == WriteOutcome::Acknowledged
    }
}

/// A steady load of reads and writes, at fixed rates whatever the answers take.
///
/// The next operation starts when it is due, not when the last one has ended (an *open loop*). Users don't wait for
/// each other either, and a load that waits hides the gap that it should measure.
///
/// ```
/// use std::time::Duration;
///
/// use pointsman::testkit::{Load, WriteOutcome};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let load = Load::start(
///     500,
///     100,
///     async |_id| Ok(()),
///     async |_id| WriteOutcome::Acknowledged,
/// );
/// // Break something here.
/// load.done(50).await;
/// let report = load.stop().await;
/// assert_eq!(report.failed_reads().count(), 0);
/// assert!(report.longest_read_gap() < Duration::from_secs(1));
/// # }
/// ```
#[derive(Debug)]
pub struct Load {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<Vec<Sample>>>,
    done: Arc<AtomicU64>,
}

impl Load {
    /// Starts a load with these rates per second.
    ///
    /// The functions get the number of the operation.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub fn start<Read, ReadFut, Write, WriteFut>(
        reads_per_second: u32,
        writes_per_second: u32,
        read: Read,
        write: Write,
    ) -> Self
    where
        Read: Fn(u64) -> ReadFut + Send + 'static,
        ReadFut: Future<Output = Result<(), String>> + Send + 'static,
        Write: Fn(u64) -> WriteFut + Send + 'static,
        WriteFut: Future<Output = WriteOutcome> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let done = Arc::new(AtomicU64::new(0));
        let read = move |id| {
            let read = read(id);
            async move { read.await.map_or_else(WriteOutcome::Failed, |()| WriteOutcome::Acknowledged) }
        };
        let tasks = vec![
            tokio::spawn(run(reads_per_second, read, stop.clone(), Arc::clone(&done))),
            tokio::spawn(run(writes_per_second, write, stop.clone(), Arc::clone(&done))),
        ];
        Self { stop, tasks, done }
    }

    /// Waits until this many more operations have ended.
    pub async fn done(&self, more: u64) {
        let target = self.done.load(Ordering::Relaxed) + more;
        while self.done.load(Ordering::Relaxed) < target {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts no more operations, and waits for those that run.
    pub async fn stop(self) -> LoadReport {
        self.stop.cancel();
        let mut samples = Vec::new();
        for task in self.tasks {
            samples.push(task.await.unwrap_or_default());
        }
        let writes = samples.pop().unwrap_or_default();
        LoadReport { reads: samples.pop().unwrap_or_default(), writes }
    }
}

async fn run<F, Fut>(
    per_second: u32,
    operation: F,
    stop: CancellationToken,
    done: Arc<AtomicU64>,
) -> Vec<Sample>
where
    F: Fn(u64) -> Fut + Send + 'static,
    Fut: Future<Output = WriteOutcome> + Send + 'static,
{
    let (sender, mut ended) = mpsc::unbounded_channel();
    let mut running = JoinSet::new();
    if per_second > 0 {
        let mut due = interval(Duration::from_secs(1) / per_second);
        // Operations that were due while the machine was busy start late, so that the rate holds.
        due.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for id in 0.. {
            let began = tokio::select! {
                () = stop.cancelled() => break,
                began = due.tick() => began,
            };
            let (operation, sender, done) = (operation(id), sender.clone(), Arc::clone(&done));
            running.spawn(async move {
                let outcome = operation.await;
                done.fetch_add(1, Ordering::Relaxed);
                // The receiver lives until all of these have ended.
                let _ = sender.send(Sample { id, began, ended: Instant::now(), outcome });
            });
            while running.try_join_next().is_some() {}
        }
    }
    drop(sender);
    let mut samples = Vec::new();
    while let Some(sample) = ended.recv().await {
        samples.push(sample);
    }
    samples
}

/// The operations of a load, as its users saw them.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LoadReport {
    /// The reads, in the order in which they ended.
    pub reads: Vec<Sample>,
    /// The writes, in the order in which they ended.
    pub writes: Vec<Sample>,
}

impl LoadReport {
    /// Returns the reads that failed.
    pub fn failed_reads(&self) -> impl Iterator<Item = &Sample> {
        self.reads.iter().filter(|read| !read.succeeded())
    }

    /// Returns the writes that failed, or whose outcome is unknown.
    pub fn failed_writes(&self) -> impl Iterator<Item = &Sample> {
        self.writes.iter().filter(|write| !write.succeeded())
    }

    /// Returns the numbers of the writes that were acknowledged.
    pub fn acknowledged(&self) -> impl Iterator<Item = u64> + '_ {
        self.writes.iter().filter(|write| write.succeeded()).map(|write| write.id)
    }

    /// Compares the writes with the effects that a server has.
    ///
    /// ```
    /// use pointsman::testkit::LoadReport;
    ///
    /// let nothing = LoadReport::default().effects([]);
    /// assert!(nothing.is_exact());
    /// ```
    pub fn effects(&self, present: impl IntoIterator<Item = u64>) -> Effects {
        let mut times = HashMap::new();
        for id in present {
            *times.entry(id).or_insert(0_u32) += 1;
        }
        let of = |is_meant: &dyn Fn(&WriteOutcome, u32) -> bool| {
            let times = |write: &Sample| times.get(&write.id).copied().unwrap_or_default();
            let meant = self.writes.iter().filter(|write| is_meant(&write.outcome, times(write)));
            meant.map(|write| write.id).collect()
        };
        Effects {
            lost: of(&|outcome, times| *outcome == WriteOutcome::Acknowledged && times == 0),
            doubled: of(&|_, times| times > 1),
            applied_though_failed: of(&|outcome, times| {
                matches!(outcome, WriteOutcome::Failed(_)) && times > 0
            }),
            unknown: of(&|outcome, _| matches!(outcome, WriteOutcome::Unknown(_))),
        }
    }

    /// Returns the longest time between two reads that succeeded.
    pub fn longest_read_gap(&self) -> Duration {
        let ends: Vec<_> = self.reads.iter().filter(|read| read.succeeded()).map(|read| read.ended).collect();
        ends.windows(2).map(|pair| pair[1].duration_since(pair[0])).max().unwrap_or_default()
    }

    /// Returns the longest duration of a read, whether it succeeded or not.
    pub fn slowest_read(&self) -> Duration {
        self.reads.iter().map(Sample::took).max().unwrap_or_default()
    }

    /// Returns the time from an instant to the next acknowledged write.
    pub fn first_write_after(&self, instant: Instant) -> Option<Duration> {
        let ended = self.writes.iter().filter(|write| write.succeeded() && write.ended >= instant);
        ended.map(|write| write.ended.duration_since(instant)).min()
    }
}

/// The writes whose effects are not what their users were told, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Effects {
    /// Acknowledged, and not there.
    pub lost: Vec<u64>,
    /// There more than once.
    pub doubled: Vec<u64>,
    /// Failed, and there all the same.
    pub applied_though_failed: Vec<u64>,
    /// Their users were told that the outcome is unknown.
    pub unknown: Vec<u64>,
}

impl Effects {
    /// Returns `true` if every user knows the effect of its write.
    pub fn is_exact(&self) -> bool {
        *self == Self::default()
    }
}

/// One line, with all numbers.
impl fmt::Display for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, doubled, applied_though_failed, unknown } = self;
        write!(
            f,
            "lost {lost:?}, doubled {doubled:?}, applied though failed {applied_though_failed:?}, unknown {unknown:?}"
        )
    }
}

/// One line, with a few of the errors.
impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} reads, {} failed, longest gap {:?}, slowest {:?}; {} writes, {} failed",
            self.reads.len(),
            self.failed_reads().count(),
            self.longest_read_gap(),
            self.slowest_read(),
            self.writes.len(),
            self.failed_writes().count(),
        )?;
        let mut errors: Vec<String> = self
            .failed_reads()
            .chain(self.failed_writes())
            .map(|sample| format!("{:?}", sample.outcome))
            .collect();
        errors.sort();
        errors.dedup();
        for error in errors.iter().take(5) {
            write!(f, "\n    {error}")?;
        }
        Ok(())
    }
}
