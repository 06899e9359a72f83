//! The task that probes one node.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::dial_limit::DialLimit;
use super::health::{ProbeOutcome, Signs};
use super::probe::{Known, probe};
use super::restart::restarted;
use super::schedule::Schedule;
use super::state::TopologyState;
use crate::backoff::Backoff;
use crate::config::ProbeSettings;
use crate::error::{ConnectError, Proof};
use crate::topology::Node;
use crate::topology::{Observation, ProbeError};
use crate::wire::{SessionKind, WireConnection};

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

impl Monitor {
    /// Starts to probe a node, until the monitor or the state is dropped.
    pub(crate) fn start(
        node: Arc<Node>,
        topology: &Arc<TopologyState>,
        probe: ProbeSettings,
        backoff: Backoff,
    ) -> Self {
        let released = Arc::new(AtomicBool::new(false));
        let begin = {
            let (node, topology, released) =
                (Arc::clone(&node), Arc::downgrade(topology), Arc::clone(&released));
            let (probe, backoff) = (probe, backoff.clone());
            move || {
                let eye = MonitorTask {
                    node: Arc::clone(&node),
                    topology: Weak::clone(&topology),
                    schedule: Schedule::new(probe.clone(), fastrand::Rng::new()),
                    probe: probe.clone(),
                    backoff: backoff.clone(),
                    link: None,
                    opened: Instant::now(),
                    known: Known::default(),
                    dial_limit: DialLimit::default(),
                    answers_before: 0,
                    released: Arc::clone(&released),
                };
                eye.promise(Duration::ZERO);
                eye.watch()
            }
        };
        let task = tokio::spawn(async move { restarted(node.name(), &backoff, begin).await });
        Self { task: task.abort_handle(), released }
    }
}

struct MonitorTask {
    node: Arc<Node>,
    topology: Weak<TopologyState>,
    probe: ProbeSettings,
    backoff: Backoff,
    /// The connection, kept from one probe to the next.
    link: Option<WireConnection>,
    /// When the connection was opened.
    opened: Instant,
    /// Results of earlier probes.
    known: Known,
    schedule: Schedule,
    dial_limit: DialLimit,
    /// Answers that the sessions had received at the last posted outcome.
    answers_before: u64,
    released: Arc<AtomicBool>,
}

/// Age at which the session to a fenced node is renewed.
///
/// By then, an address that moved back is in use again. A fenced server has nothing else to do, so an occasional
/// login is no load.
const FENCED_SESSION: Duration = Duration::from_secs(10);

/// Time by which a result may be late before the monitor counts as dead.
///
/// On a busy machine, all results are late.
const LATE: Duration = Duration::from_secs(2);

impl Drop for MonitorTask {
    fn drop(&mut self) {
        // The runtime was shut down, or this is a panic.
        if !self.released.load(Ordering::Acquire) {
            self.node.stats().heartbeat.forsake();
        }
    }
}

impl MonitorTask {
    async fn watch(mut self) {
        let Some(mut looking) = self.topology.upgrade().map(|topology| topology.looking()) else { return };
        let mut retry = self.backoff.delays();
        loop {
            let began = Instant::now();
            // Reads go elsewhere as soon as the answer is overdue, before the probe has failed.
            let node = Arc::clone(&self.node);
            let probing = node.stats().probing();
            let outcome = self.probe().await;
            drop(probing);
            let answered = outcome.is_ok();
            // A second probe follows a timeout at once, on a new connection: it tells a hiccup from an outage.
            let timed_out = matches!(outcome, Err(ProbeError::TimedOut { .. }));
            let probe = match outcome {
                Ok(observation) => ProbeOutcome::Answered(observation),
                Err(probe_error) => {
                    let signs = self.signs();
                    match self.probe_through_pool(&probe_error).await {
                        Some(observation) => ProbeOutcome::Borrowed(observation, probe_error, signs),
                        None => ProbeOutcome::Missed(probe_error, signs),
                    }
                }
            };
            let Some(topology) = self.topology.upgrade() else { return };
            topology.post(&self.node, probe, Instant::now());
            self.node.stats().heartbeat.looked(Instant::now());
            self.answers_before = self.node.stats().answers.load(Ordering::Relaxed);
            // The node was removed, and has drained.
            if !topology.is_watched(&self.node) {
                return;
            }
            // No pool connects to a fenced node, so only a new session notices that the address leads elsewhere by
            // now.
            if self.opened.elapsed() >= FENCED_SESSION && topology.is_fenced(&self.node) {
                self.link = None;
            }
            drop(topology);

            let pause = if answered {
                retry.reset();
                self.schedule.pause(looking.borrow_and_update().map(|began| began.elapsed()))
            } else if timed_out && retry.attempt() == 0 {
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
                self.rest(due, &mut looking).await;
            } else {
                sleep_until(due).await;
            }
            sleep_until(began + SPACING).await;
        }
    }

    /// Promises the next result, after a pause.
    ///
    /// The time covers a probe on the old session, a new session, and a probe on that.
    fn promise(&self, pause: Duration) {
        let dial = self.dial_limit.next(self.probe.timeout, self.node.dialer().limit());
        let probe = dial.saturating_add(self.probe.timeout * 2).saturating_add(LATE);
        let until = Instant::now().checked_add(pause.saturating_add(probe));
        self.node.stats().heartbeat.promise(until.unwrap_or_else(Instant::now));
    }

    /// Waits until the next probe is due, or there is a reason to probe sooner.
    async fn rest(&mut self, mut due: Instant, looking: &mut watch::Receiver<Option<Instant>>) {
        let mut is_woken = false;
        loop {
            tokio::select! {
                () = sleep_until(due) => return,
                () = self.node.stats().woken(), if !is_woken => {
                    is_woken = true;
                    due = due.min(self.schedule.wake(Instant::now()));
                }
                Ok(()) = looking.changed() => {
                    // The end of a search is no reason to probe.
                    if looking.borrow_and_update().is_some() {
                        due = due.min(Instant::now() + self.schedule.first_of_search());
                    }
                }
            }
        }
    }

    /// Probes once, over a new connection if there is none or the old one ended.
    async fn probe(&mut self) -> Result<Observation, ProbeError> {
        self.node.stats().probes.fetch_add(1, Ordering::Relaxed);
        let limit = self.probe.timeout;
        // A session that reached another server proves more than a long-open one.
        let redial = self.node.stats().server.take_redial();
        if let Some(link) = self.link.take().filter(|link| !redial && !link.is_closed()) {
            match probe(&link, limit, &mut self.known).await {
                Ok(observation) => {
                    self.link = Some(link);
                    return Ok(self.met(observation));
                }
                Err(ProbeError::Disconnected) => {}
                Err(probe_error) => return Err(probe_error),
            }
        }
        let link = self.dial().await?;
        self.opened = Instant::now();
        self.known.begin_session();
        let observation = probe(&link, limit, &mut self.known).await?;
        self.link = Some(link);
        Ok(self.met(observation))
    }

    /// Probes through a pool's idle session, if the monitor can open none.
    ///
    /// This happens only while the server is alive, or was not asked.
    async fn probe_through_pool(&mut self, probe_error: &ProbeError) -> Option<Observation> {
        match probe_error {
            ProbeError::Connect(error) if matches!(error.proof(), Proof::Alive | Proof::NotAsked) => {}
            _ => return None,
        }
        let lease = self.node.idle_session()?;
        self.known.begin_session();
        probe(&lease, self.probe.timeout, &mut self.known).await.ok()
    }

    /// Records which server answered.
    ///
    /// If an earlier server was another one, its sessions close, because no monitor watches them any more.
    fn met(&self, observation: Observation) -> Observation {
        if self.node.stats().server.note(observation.server, observation.system_identifier) {
            tracing::info!(
                node = self.node.name(),
                "the address leads to another server, or to one that was restarted"
            );
            self.node.close_now();
        }
        observation
    }

    async fn dial(&mut self) -> Result<WireConnection, ProbeError> {
        let began = Instant::now();
        let (dialer, stats) = (self.node.dialer(), Arc::clone(self.node.stats()));
        let limit = self.dial_limit.next(self.probe.timeout, dialer.limit());
        match dialer.dial(SessionKind::Probe, limit, stats, CancellationToken::new()).await {
            Ok(link) => {
                self.dial_limit.on_open(began.elapsed());
                Ok(link)
            }
            Err(ConnectError::TimedOut { limit }) => {
                self.dial_limit.on_timeout();
                Err(ProbeError::TimedOut { limit })
            }
            Err(error) => Err(ProbeError::Connect(Arc::new(error))),
        }
    }

    /// Returns what the pools' sessions showed since the last posted outcome.
    fn signs(&self) -> Signs {
        let stats = self.node.stats();
        let answered = stats.answers.load(Ordering::Relaxed) != self.answers_before;
        Signs { answered, open: stats.sessions() > 0 }
    }
}
