//! The task that keeps the memory file (`topology.memory_file`).
//!
//! It stands beside all decisions: the state publishes what must outlive the program, and the task writes it on a thread
//! that may block. If a write fails, the set goes on as without a file, and the task tries again. If the program ends in
//! between, the last change is lost.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use super::MemoryReport;
use crate::backoff::Backoff;
use crate::topology::memory_file::{self, Done, Found};
use crate::topology::{Memory, Remembered, TopologyState};

/// First and longest pause before a file that could not be written is tried again.
///
/// A full disk or a missing folder waits for an operator; the longest pause limits how late the repair is noticed.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The owner's handle of the task; dropping it ends the task.
#[derive(Debug)]
pub(super) struct Keeper {
    report: Arc<Mutex<MemoryReport>>,
    recalled: oneshot::Receiver<()>,
    task: AbortHandle,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Keeper {
    /// Starts to keep a file, until the keeper or the state is dropped.
    pub(super) fn start(path: Option<&Path>, topology: &Arc<TopologyState>) -> Option<Self> {
        let report = Arc::<Mutex<MemoryReport>>::default();
        let (done, recalled) = oneshot::channel();
        let task = KeeperTask {
            path: path?.into(),
            topology: Arc::downgrade(topology),
            remembered: topology.remembered(),
            report: Arc::clone(&report),
        };
        let task = tokio::spawn(task.run(done)).abort_handle();
        Some(Self { report, recalled, task })
    }

    /// Waits until the set knows what the file says, but no longer than `limit`.
    ///
    /// A file system that hangs must not stop the program; the set is told later.
    pub(super) async fn recalled(&mut self, limit: Duration) {
        if timeout(limit, &mut self.recalled).await.is_err() {
            tracing::warn!(?limit, "the memory file could not be read in time, and is used later");
        }
    }

    /// Returns the state of the file.
    pub(super) fn report(&self) -> MemoryReport {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns `true` if the task has ended, for example with its runtime.
    pub(super) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }
}

struct KeeperTask {
    path: Arc<Path>,
    topology: Weak<TopologyState>,
    remembered: watch::Receiver<Remembered>,
    report: Arc<Mutex<MemoryReport>>,
}

impl KeeperTask {
    async fn run(mut self, recalled: oneshot::Sender<()>) {
        let mut own = self.recall().await;
        // The owner may not wait any more.
        let _ = recalled.send(());
        let mut is_read = own.is_ok();
        let backoff = Backoff::new(RETRY.0, RETRY.1).expect("the first pause is not above the longest");
        let mut delays = backoff.delays();
        let mut forgettings = self.remembered.borrow().forgettings;
        loop {
            if !is_read && self.remembered.borrow().forgettings == forgettings {
                // What the file says counts as soon as it can be read, unless the set was told to forget.
                own = self.recall().await;
                is_read = own.is_ok();
            }
            let wanted = self.remembered.borrow_and_update().clone();
            let forgot = wanted.forgettings != forgettings;
            if wanted.memory.is_some() || forgot {
                let known = own.clone().unwrap_or_default();
                match self.update(known, wanted.clone(), forgot).await {
                    Ok(done) => {
                        forgettings = wanted.forgettings;
                        own = Ok(done.own.clone());
                        is_read = true;
                        delays.reset();
                        self.note_saved(&done, wanted.memory.is_some());
                    }
                    Err(error) => {
                        self.note_error(&error);
                        let pause = delays.next().unwrap_or(RETRY.1);
                        tokio::select! {
                            () = sleep(pause) => continue,
                            changed = self.remembered.changed() => match changed {
                                Ok(()) => continue,
                                Err(_) => return,
                            },
                        }
                    }
                }
            }
            if self.remembered.changed().await.is_err() {
                return;
            }
        }
    }

    /// Reads the file, and adds what it says to what the set knows.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be used at present.
    async fn recall(&self) -> Result<Option<Memory>, ()> {
        let path = Arc::clone(&self.path);
        let found = spawn_blocking(move || memory_file::read(&path)).await;
        let shown = self.path.display();
        match found.unwrap_or_else(|error| Found::Untouchable(error.to_string())) {
            Found::Missing => tracing::info!(path = %shown, "there is no memory file yet"),
            Found::Valid(memory) => {
                let (system_identifier, timeline) = (memory.system_identifier, memory.timeline);
                tracing::info!(path = %shown, system_identifier, timeline, "the memory file was read");
                if let Some(topology) = self.topology.upgrade() {
                    topology.recall(&memory, Instant::now());
                }
                return Ok(Some(memory));
            }
            Found::Corrupt(reason) => {
                tracing::warn!(path = %shown, reason, "the memory file is damaged, so nothing is remembered");
                self.report(|report| report.found = Some(format!("the memory file is damaged: {reason}")));
            }
            Found::Untouchable(reason) => {
                self.note_error(&io::Error::other(reason));
                return Err(());
            }
        }
        Ok(None)
    }

    /// # Cancel safety
    ///
    /// A write that has begun goes on if the future is dropped.
    async fn update(&self, own: Option<Memory>, wanted: Remembered, forgot: bool) -> io::Result<Done> {
        let path = Arc::clone(&self.path);
        let update = spawn_blocking(move || memory_file::update(&path, own.as_ref(), &wanted, forgot));
        update.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    fn note_saved(&self, done: &Done, saved: bool) {
        if let Some((path, _)) = &done.kept {
            let kept_as = path.display();
            tracing::warn!(%kept_as, "the memory file was damaged or of another cluster, and is kept");
        }
        self.report(|report| {
            report.saved = saved;
            report.error = None;
            if let Some((path, kept)) = &done.kept {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let what = match kept {
                    memory_file::Kept::Foreign => "belongs to another cluster",
                    memory_file::Kept::Corrupt => "is damaged",
                };
                report.found = Some(format!("the memory file {what}, and is kept as {name}"));
            }
        });
    }

    fn note_error(&self, error: &io::Error) {
        let error = error.to_string();
        let is_new = self.report(|report| {
            report.saved = false;
            let is_new = report.error.as_ref() != Some(&error);
            report.error = Some(error.clone());
            is_new
        });
        if is_new {
            let path = self.path.display();
            tracing::warn!(%path, error, "the memory file cannot be used, so a restart may forget");
        }
    }

    fn report<T>(&self, change: impl FnOnce(&mut MemoryReport) -> T) -> T {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
