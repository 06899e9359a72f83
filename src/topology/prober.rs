//! Probes one node, over a session that is kept from one probe to the next.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dial_limit::DialLimit;
use super::health::{ProbeOutcome, Signs};
use super::probe::{Known, probe};
use crate::error::{ConnectError, Proof};
use crate::topology::{Node, Observation, ProbeError};
use crate::wire::{SessionKind, WireConnection};

/// A way to probe one node; the tests of the monitor replace it.
pub(super) trait Probe: Send + 'static {
    /// Probes the node once.
    fn probe(&mut self) -> impl Future<Output = ProbeOutcome> + Send;

    /// Returns the longest time that the next probe may take.
    fn longest(&self) -> Duration;

    /// Renews the session to a fenced node from time to time.
    ///
    /// No pool connects to a fenced node, so only a new session shows that the address leads elsewhere by now.
    fn on_fenced(&mut self) {}
}

/// The prober of a real node.
pub(super) struct Prober {
    node: Arc<Node>,
    timeout: Duration,
    /// The session, kept from one probe to the next.
    session: Option<WireConnection>,
    /// When the session was opened.
    opened: Instant,
    /// Results of earlier probes.
    known: Known,
    dial_limit: DialLimit,
    /// Answers that the pools' sessions had received at the last probe.
    answers_before: u64,
}

/// Age at which the session to a fenced node is renewed.
///
/// By then, an address that moved back is in use again. A fenced server has nothing else to do, so an occasional
/// login is no load.
const FENCED_SESSION: Duration = Duration::from_secs(10);

impl Prober {
    pub(super) fn new(node: Arc<Node>, timeout: Duration) -> Self {
        Self {
            node,
            timeout,
            session: None,
            opened: Instant::now(),
            known: Known::default(),
            dial_limit: DialLimit::default(),
            answers_before: 0,
        }
    }

    /// Asks the node for its state, over a new session if it needs one.
    async fn ask(&mut self) -> Result<Observation, ProbeError> {
        // A session that reached another server proves more than a long-open one.
        let redial = self.node.stats().server.take_redial();
        if let Some(session) = self.session.take().filter(|session| !redial && !session.is_closed()) {
            match probe(&session, self.timeout, &mut self.known).await {
                Ok(observation) => {
                    self.session = Some(session);
                    return Ok(self.record_server(observation));
                }
                Err(ProbeError::Disconnected) => {}
                Err(probe_error) => return Err(probe_error),
            }
        }
        let session = self.dial().await?;
        self.opened = Instant::now();
        self.known.begin_session();
        let observation = probe(&session, self.timeout, &mut self.known).await?;
        self.session = Some(session);
        Ok(self.record_server(observation))
    }

    /// Asks through a pool's idle session, if the monitor can open none.
    ///
    /// This happens only while the server is alive, or was not asked.
    async fn ask_through_pool(&mut self, probe_error: &ProbeError) -> Option<Observation> {
        match probe_error {
            ProbeError::Connect(error) if matches!(error.proof(), Proof::Alive | Proof::NotAsked) => {}
            _ => return None,
        }
        let lease = self.node.idle_session()?;
        self.known.begin_session();
        probe(&lease, self.timeout, &mut self.known).await.ok()
    }

    /// Records which server answered.
    ///
    /// If an earlier server was another one, its sessions close, because no monitor watches them any more.
    fn record_server(&self, observation: Observation) -> Observation {
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
        let limit = self.dial_limit.next(self.timeout, dialer.limit());
        match dialer.dial(SessionKind::Probe, limit, stats, CancellationToken::new()).await {
            Ok(session) => {
                self.dial_limit.on_open(began.elapsed());
                Ok(session)
            }
            Err(ConnectError::TimedOut { limit }) => {
                self.dial_limit.on_timeout();
                Err(ProbeError::TimedOut { limit })
            }
            Err(error) => Err(ProbeError::Connect(Arc::new(error))),
        }
    }

    /// Returns what the pools' sessions showed since the last probe.
    fn signs(&self) -> Signs {
        let stats = self.node.stats();
        let answered = stats.answers.load(Ordering::Relaxed) != self.answers_before;
        Signs { answered, open: stats.sessions() > 0 }
    }
}

impl Probe for Prober {
    async fn probe(&mut self) -> ProbeOutcome {
        // Reads go elsewhere as soon as the answer is overdue, before the probe has failed.
        let node = Arc::clone(&self.node);
        let probing = node.stats().probing();
        let asked = self.ask().await;
        drop(probing);
        let outcome = match asked {
            Ok(observation) => ProbeOutcome::Answered(observation),
            Err(probe_error) => {
                let signs = self.signs();
                match self.ask_through_pool(&probe_error).await {
                    Some(observation) => ProbeOutcome::Borrowed(observation, probe_error, signs),
                    None => ProbeOutcome::Missed(probe_error, signs),
                }
            }
        };
        self.answers_before = self.node.stats().answers.load(Ordering::Relaxed);
        outcome
    }

    fn longest(&self) -> Duration {
        // A probe over the old session, a new session, and a probe over that.
        let dial = self.dial_limit.next(self.timeout, self.node.dialer().limit());
        dial.saturating_add(self.timeout * 2)
    }

    fn on_fenced(&mut self) {
        if self.opened.elapsed() >= FENCED_SESSION {
            self.session = None;
        }
    }
}
