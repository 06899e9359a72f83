//! Notifications of the primary, through failovers.
//!
//! PostgreSQL sends a notification to the sessions that listen at the moment of the commit, and to no later one. So a
//! session that breaks loses notifications, and a stream that hides this makes caches that are wrong for good. A
//! listener therefore has a dedicated session, follows the primary with it, and adds an event if notifications may be
//! missing.
//!
//! * [`Listener`]: the stream
//! * [`ListenEvent`]: an event of the stream
//! * `channel`: names that mean what `pg_notify` means by them (pure)
//! * `inbox`: events that were not taken yet, within bounds (pure)
//! * `reconnect`: when to connect again, and where (pure)
//! * `session`, `task`: one session, and the task that keeps one

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use self::channel::Channels;
pub use self::event::{Gap, Interruption, ListenEvent, Notification};
use self::inbox::Mailbox;
pub use self::listener::Listener;
use self::reconnect::{Reconnect, Step};
use self::session::{Failed, Place, Session};
use self::task::Task;
use super::{ReplicaSet, failures};
use crate::error::{CheckoutError, ConnectError, ListenError, NodeFailure};
use crate::topology::PrimaryStatus;

mod channel;
mod event;
mod inbox;
mod listener;
mod reconnect;
mod session;
mod task;

/// Longest wait for a change of the topology before the primary is checked again.
const PAUSE: Duration = Duration::from_millis(50);

impl ReplicaSet {
    /// Listens to channels on the primary, through failovers.
    ///
    /// The notifications arrive on a dedicated session, which takes no connection from a pool. It ends when its node
    /// goes down, or is demoted or fenced. Then the listener connects to the new primary, by the set's backoff and
    /// limits. The event [`ListenEvent::MayHaveMissed`] follows because notifications may be missing: read your tables
    /// again at this point. A session that dies in silence is noticed within about 5 s + `timeouts.connect`.
    ///
    /// When this returns, the server has confirmed the `LISTEN`: the stream has every notification that is committed
    /// from then on.
    ///
    /// A channel's name is taken as it is, as `pg_notify` takes it: `"Orders"` and `"orders"` are two channels.
    /// (`NOTIFY Orders` without quotes means `orders`.)
    ///
    /// A program that does not take its events blocks no server. PostgreSQL keeps notifications until every session has
    /// read them, and fails the COMMIT of notifying transactions if there are too many. So the session is always read.
    /// Up to 1024 events wait for the program; later ones are dropped, and one `MayHaveMissed` replaces them.
    ///
    /// PgBouncer forwards notifications in session mode only, and in its other modes the connection is refused
    /// ([`ConnectError::SharedByPooler`]).
    ///
    /// # Errors
    ///
    /// [`ListenError::Channel`] if a name cannot be a channel. The call waits for a primary as [`write`](Self::write)
    /// does, but not for one that rejects the login.
    ///
    /// # Cancel safety
    ///
    /// A dropped future ends the session that it opened.
    ///
    /// ```no_run
    /// use pointsman::prelude::*;
    /// use pointsman::ReplicaSet;
    /// use pointsman::listen::ListenEvent;
    ///
    /// # async fn reload() {}
    /// # async fn example(set: ReplicaSet) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut events = set.listen(["orders"]).await?;
    /// reload().await; // once, after `listen`: what was committed before is in the tables
    ///
    /// let conn = set.write().await?;
    /// diesel::sql_query("SELECT pg_notify('orders', '17')").execute(&conn).await?;
    ///
    /// while let Some(event) = events.next().await {
    ///     match event {
    ///         ListenEvent::Notification(order) => println!("{} changed", order.payload),
    ///         ListenEvent::MayHaveMissed(_) => reload().await,
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn listen<C: Into<String>>(
        &self,
        channels: impl IntoIterator<Item = C>,
    ) -> Result<Listener, ListenError> {
        let channels = Channels::parse(channels)?;
        let listener = self.begin_to_listen(channels);
        tokio::select! {
            biased;
            outcome = listener => outcome,
            () = self.inner.closed.cancelled() => Err(CheckoutError::Closed.into()),
        }
    }

    /// Returns the primary, as a place to listen.
    fn place_to_listen(&self) -> Option<Place> {
        let snapshot = self.snapshot();
        // The monitors have stopped, so a replaced primary would go unnoticed.
        if !self.is_up_to_date(&snapshot, Instant::now()) {
            return None;
        }
        let node = &snapshot.nodes[snapshot.primary?].node;
        let outside = node.write_pool()?.outside();
        Some(Place { node: node.id(), name: node.name().to_owned(), outside })
    }

    async fn begin_to_listen(&self, channels: Channels) -> Result<Listener, ListenError> {
        let mailbox = Arc::new(Mailbox::default());
        let topology = self.watch();
        let mut reconnect = Reconnect::new(self.config().backoff(), Instant::now());
        let first = self.first_session(&channels, &mailbox, &mut reconnect).await?;
        reconnect.on_confirmed(Instant::now());
        let (sender, changes) = mpsc::unbounded_channel();
        let released = CancellationToken::new();
        let listener = Listener::new(Arc::clone(&mailbox), sender, released.clone().drop_guard());
        let task = Task {
            set: Arc::downgrade(&self.inner),
            closed: self.inner.closed.clone(),
            released,
            topology,
            channels,
            changes,
            unconfirmed: Vec::new(),
            mailbox,
            reconnect,
        };
        tokio::spawn(task.run(first));
        Ok(listener)
    }

    /// Connects to the primary, and waits for one within the bounds of a write.
    async fn first_session(
        &self,
        channels: &Channels,
        mailbox: &Arc<Mailbox>,
        reconnect: &mut Reconnect,
    ) -> Result<Session, ListenError> {
        let began = Instant::now();
        let live = self.live();
        let settings = live.config.writes();
        let deadline = began + settings.failover_wait;
        let mut topology = self.watch();
        let mut waiting: Option<OwnedSemaphorePermit> = None;
        let mut tried: Option<NodeFailure> = None;
        loop {
            self.check_open()?;
            self.check_one_primary()?;
            let place = self.place_to_listen();
            let step = reconnect.step(place.as_ref().map(|place| place.node), Instant::now());
            if let (Step::Dial, Some(place)) = (step, place) {
                let (node, name) = (place.node, place.name.clone());
                match Session::begin(place, channels, mailbox).await {
                    Ok(session) => return Ok(session),
                    Err(failed) => tried = Some(outcome(name, failed)?),
                }
                reconnect.on_failure(node, Instant::now());
                continue;
            }
            if Instant::now() >= deadline {
                let snapshot = self.snapshot();
                if !snapshot.is_up_to_date(Instant::now()) {
                    return Err(CheckoutError::Stale { waited: began.elapsed() }.into());
                }
                let failures = failures(&snapshot, tried.as_slice());
                return Err(CheckoutError::NoPrimary { waited: began.elapsed(), failures }.into());
            }
            if waiting.is_none() {
                let limit = settings.max_waiters;
                let place = live.limits.waiters.try_acquire();
                waiting = Some(place.ok_or(CheckoutError::TooManyWaiters { limit })?);
            }
            let until = match step {
                Step::Wait { until } => until,
                Step::Dial => deadline,
            };
            let wake = until.min(deadline).min(Instant::now() + PAUSE);
            // Check again after a change, and after the pause.
            let _ = timeout_at(wake, topology.changed()).await;
        }
    }

    fn check_one_primary(&self) -> Result<(), CheckoutError> {
        match &self.snapshot().topology.primary {
            PrimaryStatus::SplitBrain { nodes, timeline } => {
                Err(CheckoutError::SplitBrain { nodes: nodes.clone(), timeline: *timeline })
            }
            PrimaryStatus::IdentifierMismatch { nodes } => {
                Err(CheckoutError::IdentifierMismatch { nodes: nodes.clone() })
            }
            PrimaryStatus::One { .. } | PrimaryStatus::None => Ok(()),
        }
    }
}

/// Separates failures that may pass with time from those that do not.
fn outcome(node: String, failed: Failed) -> Result<NodeFailure, ListenError> {
    match failed {
        Failed::Server(source) => Err(ListenError::Server { node, source }),
        // A slot may be free again soon; a rejected login stays rejected.
        Failed::Connect(error)
            if error.is_refusal() && !matches!(error, ConnectError::TooManyConnections(_)) =>
        {
            Err(ListenError::CannotConnect { node, error: Arc::new(error) })
        }
        Failed::Connect(error) => {
            let reason = error.to_string();
            Ok(NodeFailure { node, reason, error: Some(Arc::new(error)) })
        }
        Failed::Lost(reason) => Ok(NodeFailure { node, reason: reason.to_string(), error: None }),
    }
}
