//! Checks out a connection to the primary, and waits if there is none.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use super::{ReplicaSet, failures};
use crate::conn::Conn;
use crate::defect::Defect;
use crate::error::{CausalError, CheckoutError, ConnectError, NodeFailure};
use crate::lsn::SharedLog;
use crate::options::WriteOptions;
use crate::pool::{PoolError, Queueing};
use crate::topology::{Known, PrimaryStatus, Role};
use crate::{IntentKind, Write};

/// Longest pause before the primary is tried again.
///
/// A change of the topology ends it.
const PAUSE: Duration = Duration::from_millis(20);

/// The outcome of one attempt to get a connection from the primary.
enum Attempt {
    Served(Conn<Write>),
    /// No primary is known, or it failed in this way, so another node may be promoted.
    NoPrimary(Option<NodeFailure>),
    /// The primary is up, but rejects logins.
    Refused(Refusal),
    /// Waiting cannot help.
    Final(CheckoutError),
}

impl ReplicaSet {
    /// Checks out a connection to write, from the discovered primary.
    ///
    /// While there is no primary, this waits for one, up to `writes.failover_wait`. At most `writes.max_waiters`
    /// callers wait at once; others fail immediately. If all connections of the pool are in use, this waits up to
    /// `timeouts.checkout`, and equally if the primary has no free connection slot. If the primary rejects the login,
    /// this fails at once.
    ///
    /// # Errors
    ///
    /// [`CheckoutError`]; nothing was sent to a server. A split brain is an error at once.
    ///
    /// # Cancel safety
    ///
    /// A dropped future takes no connection, and releases its permit to wait.
    ///
    /// ```no_run
    /// # use pointsman::prelude::*;
    /// # async fn example(set: pointsman::ReplicaSet) -> Result<(), pointsman::CheckoutError> {
    /// let conn: Conn<Write> = set.write().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn write(&self) -> Result<Conn<Write>, CheckoutError> {
        self.write_before(&WriteOptions::new(), None, &SharedLog::none()).await
    }

    /// Checks out a connection to write, with options for this call.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    ///
    /// # Cancel safety
    ///
    /// As [`write`](Self::write).
    ///
    /// ```no_run
    /// # use pointsman::{CheckoutError, ReplicaSet, WriteOptions};
    /// # async fn example(set: ReplicaSet) -> Result<(), CheckoutError> {
    /// // A counter that may miss a few: no request waits for a failover because of it.
    /// match set.write_with(&WriteOptions::new().no_wait()).await {
    ///     Ok(conn) => println!("written on {}", conn.node()),
    ///     Err(CheckoutError::NoPrimary { .. } | CheckoutError::Exhausted { .. }) => println!("left out"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    // The future keeps no reference to the options, so the caller can build them in the call, also inside `join!`.
    pub fn write_with<'set>(
        &'set self,
        options: &WriteOptions,
    ) -> impl Future<Output = Result<Conn<Write>, CheckoutError>> + Send + use<'set> {
        let options = *options;
        async move {
            let limit = options.within.map(|limit| Instant::now() + limit);
            self.write_before(&options, limit, &SharedLog::none()).await
        }
    }

    /// As [`write_with`](Self::write_with), with a deadline from the call's start.
    ///
    /// The positions of what is written are recorded in the log, if there is one.
    pub(crate) async fn write_before(
        &self,
        options: &WriteOptions,
        limit: Option<Instant>,
        log: &SharedLog,
    ) -> Result<Conn<Write>, CheckoutError> {
        self.while_open(pin!(self.find_writer(options, limit, log))).await
    }

    async fn find_writer(
        &self,
        options: &WriteOptions,
        limit: Option<Instant>,
        log: &SharedLog,
    ) -> Result<Conn<Write>, CheckoutError> {
        let began = Instant::now();
        let live = self.live();
        let settings = live.config.writes();
        let deadline = match limit {
            _ if options.no_wait => began,
            _ if Defect::EndlessWait.is_seeded() => began + 100 * settings.failover_wait,
            Some(limit) => limit,
            None => began + settings.failover_wait,
        };
        let queueing = if options.no_wait { Queueing::Refuse } else { Queueing::Join };
        let mut waiting: Option<(_, OwnedSemaphorePermit)> = None;
        let mut refused_since = None;
        loop {
            self.check_open()?;
            // The wait for a primary does not count as a wait for one of its connections.
            let checkout = live.config.timeouts().checkout;
            let until = limit.unwrap_or_else(|| Instant::now() + checkout);
            match self.ask_primary(began, until, queueing).await {
                Attempt::Served(conn) => match self.begin_recording(&conn, log, began).await? {
                    true => return Ok(conn),
                    // What the session has seen is on no history that this set knows yet.
                    false if Instant::now() >= deadline => {
                        return Err(self.no_primary(&[], began));
                    }
                    false => {}
                },
                Attempt::Final(error) => return Err(error),
                Attempt::Refused(refusal) => {
                    let since = *refused_since.get_or_insert_with(Instant::now);
                    let checkout = limit.map_or(checkout, |limit| limit.saturating_duration_since(began));
                    if refusal.is_final(since, checkout) || Instant::now() >= deadline {
                        return Err(refusal.into_error(began.elapsed()));
                    }
                }
                Attempt::NoPrimary(failure) => {
                    refused_since = None;
                    if Instant::now() >= deadline {
                        return Err(self.no_primary(failure.as_slice(), began));
                    }
                }
            }
            let (changes, _) = match &mut waiting {
                Some(waiting) => waiting,
                None => {
                    let Some(permit) = live.limits.waiters.try_acquire() else {
                        self.check_open()?;
                        return Err(CheckoutError::TooManyWaiters { limit: settings.max_waiters });
                    };
                    // All changes since the last read of the snapshot are reported as a change.
                    waiting.insert((self.watch(), permit))
                }
            };
            let _ = timeout_at(deadline.min(Instant::now() + PAUSE), changes.changed()).await;
        }
    }

    /// Records what is written on a connection.
    ///
    /// The recording begins once its history is known to contain what the session has seen.
    ///
    /// Returns `false` if that is not known yet.
    async fn begin_recording(
        &self,
        conn: &Conn<Write>,
        log: &SharedLog,
        began: Instant,
    ) -> Result<bool, CheckoutError> {
        let Some(log) = &log.0 else { return Ok(true) };
        let snapshot = self.snapshot();
        if let Some(token) = snapshot.token(log) {
            let mut required = snapshot.requirement(&token)?;
            if required.known == Known::Ahead {
                // Another program may have written it since the last probe.
                let asked = conn.ask_position().await;
                let is_written = asked.is_some_and(|position| position >= required.position);
                required.known = if is_written { Known::Written } else { Known::Ahead };
            }
            if required.known != Known::Written {
                if snapshot.was_observed_since(began, required.known) {
                    return Err(CausalError::from(required).into());
                }
                snapshot.wake_monitors();
                return Ok(false);
            }
            snapshot.forget_ancestors(log);
        }
        log.begin_in(snapshot.system_identifier);
        conn.track(log, snapshot.ancestry.timeline());
        Ok(true)
    }

    /// Returns the error of a write that found no primary before its deadline.
    fn no_primary(&self, tried: &[NodeFailure], began: Instant) -> CheckoutError {
        let snapshot = self.snapshot();
        if !snapshot.is_up_to_date(Instant::now()) {
            return CheckoutError::Stale { waited: began.elapsed() };
        }
        let failures = failures(&snapshot, tried);
        CheckoutError::NoPrimary { waited: began.elapsed(), failures }
    }

    /// Asks the present primary for a connection, if there is one.
    async fn ask_primary(&self, began: Instant, deadline: Instant, queueing: Queueing) -> Attempt {
        loop {
            let snapshot = self.snapshot();
            // The monitors have stopped, so a replaced primary would go unnoticed.
            if !self.is_up_to_date(&snapshot, Instant::now()) {
                return Attempt::NoPrimary(None);
            }
            match &snapshot.topology.primary {
                PrimaryStatus::SplitBrain { nodes, timeline } => {
                    let (nodes, timeline) = (nodes.clone(), *timeline);
                    return Attempt::Final(CheckoutError::SplitBrain { nodes, timeline });
                }
                PrimaryStatus::IdentifierMismatch { nodes } => {
                    return Attempt::Final(CheckoutError::IdentifierMismatch { nodes: nodes.clone() });
                }
                PrimaryStatus::One { .. } | PrimaryStatus::None => {}
            }
            let primary = snapshot.primary.map(|primary| &snapshot.nodes[primary].node);
            let Some((node, pool)) = primary.and_then(|node| Some((node, node.write_pool()?))) else {
                return Attempt::NoPrimary(None);
            };
            let failed = |reason: String, error: Option<Arc<ConnectError>>| {
                Attempt::NoPrimary(Some(NodeFailure { node: node.name().to_owned(), reason, error }))
            };
            return match pool.get(deadline, queueing).await {
                Ok(lease) => Attempt::Served(Conn::new(lease, Arc::clone(node), Role::Primary)),
                Err(PoolError::Retired) => {
                    // The primary is still in the set, with a new pool in a newer snapshot.
                    yield_now().await;
                    continue;
                }
                Err(PoolError::Exhausted) => Attempt::Final(CheckoutError::Exhausted {
                    node: node.name().to_owned(),
                    intent: IntentKind::Write,
                    waited: began.elapsed(),
                    max_size: self.config().pool().max_size,
                }),
                Err(PoolError::Closed) => failed("it was lost or replaced".to_owned(), None),
                Err(PoolError::Connecting) => {
                    failed("a connection to it was not there in time".to_owned(), None)
                }
                Err(PoolError::Connect(error)) if error.is_refusal() => {
                    Attempt::Refused(Refusal { node: node.name().to_owned(), error })
                }
                Err(PoolError::Connect(error)) => failed(error.to_string(), Some(error)),
            };
        }
    }
}

/// A primary that is up but rejects logins.
///
/// Waiting for a failover would not help.
struct Refusal {
    node: String,
    error: Arc<ConnectError>,
}

impl Refusal {
    /// Returns `true` if waiting cannot help.
    ///
    /// A connection slot may be free again soon, as a connection of the pool may. A rejected login stays rejected.
    fn is_final(&self, since: Instant, checkout: Duration) -> bool {
        !matches!(*self.error, ConnectError::TooManyConnections(_)) || since.elapsed() >= checkout
    }

    fn into_error(self, waited: Duration) -> CheckoutError {
        CheckoutError::CannotConnect { node: self.node, intent: IntentKind::Write, waited, error: self.error }
    }
}
