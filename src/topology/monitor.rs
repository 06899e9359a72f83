//! The task that probes one node, again and again.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::health::ProbeOutcome;
use super::prober::{Probe, Prober};
use super::restart::restarted;
use super::schedule::{Schedule, late_after};
use super::stall::{SAMPLE_INTERVAL, Stall};
use super::state::TopologyState;
use crate::backoff::Backoff;
use crate::config::ProbeSettings;
use crate::timeout::within;
use crate::topology::{Node, ProbeError};

/// The owner's handle of a monitor; dropping it ends the task.
#[derive(Debug)]
pub(crate) struct Monitor {
    task: AbortHandle,
    /// `true` if the owner ended the task.
    released: Arc<AtomicBool>,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.released.store(true, Ordering::Release);
        self.task.abort();
    }
}

/// The shortest time between two probes, whatever the reason.
const SPACING: Duration = Duration::from_millis(10);

/// Time by which a result may be late before the monitor counts as dead.
///
/// On a busy machine, all results are late.
const LATE: Duration = Duration::from_secs(2);

impl Monitor {
    /// Starts to probe a node, until the monitor or the state is dropped.
    pub(crate) fn start(
        node: Arc<Node>,
        topology: &Arc<TopologyState>,
        probe: ProbeSettings,
        backoff: Backoff,
    ) -> Self {
        let timeout = probe.timeout;
        Self::start_with(node, topology, probe, backoff, move |node| Prober::new(node, timeout))
    }

    /// Starts to probe a node with the given prober.
    ///
    /// `prober` runs again if the task starts again after a panic.
    fn start_with<P: Probe>(
        node: Arc<Node>,
        topology: &Arc<TopologyState>,
        probe: ProbeSettings,
        backoff: Backoff,
        mut prober: impl FnMut(Arc<Node>) -> P + Send + 'static,
    ) -> Self {
        let released = Arc::new(AtomicBool::new(false));
        let begin = {
            let (node, topology, released) =
                (Arc::clone(&node), Arc::downgrade(topology), Arc::clone(&released));
            let backoff = backoff.clone();
            move || {
                let task = MonitorTask {
                    node: Arc::clone(&node),
                    topology: Weak::clone(&topology),
                    prober: prober(Arc::clone(&node)),
                    schedule: Schedule::new(probe.clone(), fastrand::Rng::new()),
                    stall: Stall::default(),
                    backoff: backoff.clone(),
                    released: Arc::clone(&released),
                };
                task.promise(Duration::ZERO);
                task.run()
            }
        };
        let task = tokio::spawn(async move { restarted(node.name(), &backoff, begin).await });
        Self { task: task.abort_handle(), released }
    }
}

struct MonitorTask<P> {
    node: Arc<Node>,
    topology: Weak<TopologyState>,
    prober: P,
    schedule: Schedule,
    stall: Stall,
    backoff: Backoff,
    released: Arc<AtomicBool>,
}

impl<P> Drop for MonitorTask<P> {
    fn drop(&mut self) {
        // The runtime was shut down, or this is a panic.
        if !self.released.load(Ordering::Acquire) {
            self.node.stats().heartbeat.forsake();
        }
    }
}

impl<P: Probe> MonitorTask<P> {
    async fn run(mut self) {
        let Some(mut search) = self.topology.upgrade().map(|topology| topology.search()) else { return };
        let mut retry = self.backoff.delays();
        loop {
            let began = Instant::now();
            self.node.stats().probes.fetch_add(1, Ordering::Relaxed);
            let outcome = self.probe().await;
            let (answered, timed_out) = match &outcome {
                ProbeOutcome::Answered(_) => (true, false),
                ProbeOutcome::Missed(error, _) | ProbeOutcome::Borrowed(_, error, _) => {
                    (false, matches!(error, ProbeError::TimedOut { .. }))
                }
            };
            let Some(topology) = self.topology.upgrade() else { return };
            topology.post(&self.node, outcome, Instant::now());
            self.node.stats().heartbeat.on_result(Instant::now());
            // The node was removed, and has drained.
            if !topology.is_watched(&self.node) {
                return;
            }
            if topology.is_fenced(&self.node) {
                self.prober.on_fenced();
            }
            let is_primary = topology.is_primary(&self.node);
            drop(topology);

            let pause = if answered {
                retry.reset();
                self.schedule.pause(search.borrow_and_update().map(|began| began.elapsed()))
            } else if timed_out && retry.attempt() == 0 {
                // A second probe follows a timeout at once, on a new connection: it tells a hiccup from an outage.
                retry.next();
                Duration::ZERO
            } else {
                // A monitor never gives up: when the schedule ends, its last step repeats.
                retry.next().unwrap_or_else(|| self.backoff.max())
            };
            self.promise(pause);
            let due = Instant::now() + pause;
            // An earlier probe does not help a node that is down, so only its backoff counts.
            if answered {
                self.wait(due, &mut search, is_primary).await;
            } else {
                sleep_until(due).await;
            }
            sleep_until(began + SPACING).await;
        }
    }

    /// Probes the node, and reports an answer that is late before it is there.
    async fn probe(&mut self) -> ProbeOutcome {
        let late = late_after(self.node.stats().latency.average());
        let mut outcome = pin!(self.prober.probe());
        if let Some(outcome) = within(late, &mut outcome).await {
            return outcome;
        }
        if let Some(topology) = self.topology.upgrade() {
            topology.post_late(&self.node, Instant::now());
        }
        outcome.await
    }

    /// Promises the next result, after a pause.
    fn promise(&self, pause: Duration) {
        let probe = self.prober.longest().saturating_add(LATE);
        let until = Instant::now().checked_add(pause.saturating_add(probe));
        self.node.stats().heartbeat.promise(until.unwrap_or_else(Instant::now));
    }

    /// Waits until the next probe is due, or there is a reason to probe sooner.
    async fn wait(
        &mut self,
        mut due: Instant,
        search: &mut watch::Receiver<Option<Instant>>,
        is_primary: bool,
    ) {
        let mut is_woken = false;
        let mut sample = Instant::now() + SAMPLE_INTERVAL;
        loop {
            tokio::select! {
                biased;
                () = sleep_until(due) => return,
                () = self.node.stats().woken(), if !is_woken => {
                    is_woken = true;
                    due = due.min(self.schedule.wake(Instant::now()));
                }
                () = sleep_until(sample), if is_primary => {
                    sample = Instant::now() + SAMPLE_INTERVAL;
                    let stats = self.node.stats();
                    if self.stall.on_sample(stats.answers.load(Ordering::Relaxed), self.node.leased() > 0) {
                        stats.wake_monitor_for_slow_answer();
                    }
                }
                Ok(()) = search.changed() => {
                    // The end of a search is no reason to probe.
                    if search.borrow_and_update().is_some() {
                        due = due.min(Instant::now() + self.schedule.first_of_search());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
