//! The pools: one per node and intent. The only file that names bb8.
//!
//! bb8 keeps the idle connections, checks them when they are taken and returned, and closes those that no caller uses.
//! This module does the rest. It decides whose turn it is, opens connections, handles failures for the waiting callers,
//! and closes all connections of a pool at once.
//!
//! * [`NodePool`]: checks out a connection, closes all of them
//! * `gate`: admits as many callers as there may be connections, first in, first out
//! * `queue`: callers past the gate that wait for a connection to be opened or returned
//! * `breaker`: decides when to try a login again after a failed one (pure)
//! * `lease`: a connection that is handed out, and the way it is returned
//! * `reset`: restores a session whose user changed its settings
//! * `canceller`: cancels the statement of a connection for its user
//! * `outside`: a session outside the pool that ends with the pool's sessions
//! * `ending`: an abandoned session, until the server has ended it
//!
//! A connection's health is known from its own bytes, so a checkout makes no round trip.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub(crate) use self::canceller::{Canceller, Request};
use self::gate::Pass;
pub(crate) use self::gate::{Gate, Queueing};
pub(crate) use self::lease::Lease;
use self::lease::Slot;
pub(crate) use self::outside::Outside;
use self::queue::Queue;
use crate::backoff::Backoff;
use crate::config::PoolSettings;
use crate::error::ConnectError;
use crate::limit::Limit;
use crate::stats::NodeStats;
use crate::wire::{Dialer, SessionKind, WireConnection};

mod breaker;
mod canceller;
mod ending;
mod gate;
mod lease;
mod outside;
mod queue;
mod reset;

/// The reason why a pool provided no connection.
#[derive(Debug)]
pub(crate) enum PoolError {
    /// No session could be opened, and no session in use is worth waiting for.
    Connect(Arc<ConnectError>),
    /// All connections were in use until the deadline.
    ///
    /// A caller that joins no queue fails at once.
    Exhausted,
    /// A connection was still being opened at the deadline.
    Connecting,
    /// The pool was closed while the caller waited.
    Closed,
    /// Another pool has replaced this one, because the settings changed.
    Retired,
}

/// Limits that both pools of a node share.
///
/// They keep a slow or recovering node from being overloaded.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Connections being opened.
    connects: Limit,
    /// Cancel requests, each of which is a short connection.
    cancels: Limit,
}

impl Limits {
    pub(crate) fn new(settings: &PoolSettings) -> Self {
        let limit = settings.max_concurrent_connects;
        Self { connects: Limit::new(limit), cancels: Limit::new(limit) }
    }

    /// Applies other settings; operations in progress still count.
    pub(crate) fn resize(&self, settings: &PoolSettings) {
        self.connects.resize(settings.max_concurrent_connects);
        self.cancels.resize(settings.max_concurrent_connects);
    }
}

/// A pool of connections to one node for one intent.
pub(crate) struct NodePool {
    shared: Arc<Shared>,
}

/// The state that the pool and its connections share.
struct Shared {
    dialer: Arc<Dialer>,
    kind: SessionKind,
    settings: PoolSettings,
    stats: Arc<NodeStats>,
    limits: Arc<Limits>,
    /// Cancelled to end all connections of this generation.
    ///
    /// The next generation's token then replaces it.
    generation: ArcSwap<CancellationToken>,
    /// Shared with the pools that this one replaced.
    gate: Gate,
    /// `true` if another pool has replaced this one.
    ///
    /// It then hands out and keeps no connection.
    retired: Arc<AtomicBool>,
    /// Cancelled on retirement, for the callers that wait.
    retiring: CancellationToken,
    idle: Idle,
    queue: Queue,
    /// Connections that are handed out.
    leased: AtomicU32,
    /// Sessions that were abandoned, and have not ended.
    ending: AtomicU32,
    /// The runtime that created the pool, for returns from outside a runtime.
    home: Handle,
}

/// A connection in a pool, with the time at which it is too old.
///
/// It is boxed because it is large, and its lease is moved with every checkout.
struct PooledConnection {
    link: Box<WireConnection>,
    expires: Instant,
}

/// Shortest time between two checks for idle connections.
///
/// A check runs twice per idle timeout.
///
/// The longest time is bb8's own interval. The shortest keeps a pool with a tiny timeout from checking all the time.
const SHORTEST_REAPER_INTERVAL: Duration = Duration::from_millis(50);
const LONGEST_REAPER_INTERVAL: Duration = Duration::from_secs(30);

impl NodePool {
    /// Creates an empty pool; it connects on demand.
    ///
    /// `delays` are the waits after failed logins.
    ///
    /// # Panics
    ///
    /// If called outside a tokio runtime.
    pub(crate) fn new(
        dialer: Arc<Dialer>,
        kind: SessionKind,
        settings: &PoolSettings,
        delays: &Backoff,
        stats: Arc<NodeStats>,
        limits: Arc<Limits>,
        gate: Gate,
    ) -> Self {
        let retired = Arc::new(AtomicBool::new(false));
        let shared = Shared {
            dialer,
            kind,
            settings: settings.clone(),
            stats,
            limits,
            generation: ArcSwap::from_pointee(CancellationToken::new()),
            gate,
            idle: Idle::new(kind, settings, Arc::clone(&retired)),
            retired,
            retiring: CancellationToken::new(),
            queue: Queue::new(delays),
            leased: AtomicU32::new(0),
            ending: AtomicU32::new(0),
            home: Handle::current(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Checks out a connection, and waits for one until the deadline.
    ///
    /// Callers are served in turn.
    ///
    /// # Cancel safety
    ///
    /// A dropped future takes nothing; a connection being opened for it goes to the pool.
    pub(crate) async fn get(&self, deadline: Instant, queueing: Queueing) -> Result<Lease, PoolError> {
        let shared = &self.shared;
        if self.is_retired() {
            return Err(PoolError::Retired);
        }
        if let Some(pass) = shared.gate.try_enter() {
            match shared.take_idle() {
                Some(slot) => Ok(Lease::new(slot, pass)),
                None => self.wait(Some(pass), deadline).await,
            }
        } else if queueing == Queueing::Refuse {
            Err(PoolError::Exhausted)
        } else {
            self.wait(None, deadline).await
        }
    }

    /// Takes an idle connection that no caller waits for; opens none.
    pub(crate) fn try_idle(&self) -> Option<Lease> {
        let pass = self.shared.gate.try_enter()?;
        self.shared.take_idle().map(|slot| Lease::new(slot, pass))
    }

    /// Waits at the gate, if the caller has not passed it, and then in the queue.
    async fn wait(&self, pass: Option<Pass>, deadline: Instant) -> Result<Lease, PoolError> {
        let shared = &self.shared;
        let generation = shared.generation.load_full();
        let turn = async {
            let pass = match pass {
                Some(pass) => pass,
                None => shared.gate.enter().await,
            };
            let slot = match shared.take_idle() {
                Some(slot) => slot,
                // The queue is dropped with the pool alone, which this borrows.
                None => shared.join_queue().await.unwrap_or(Err(PoolError::Closed))?,
            };
            Ok(Lease::new(slot, pass))
        };
        // Boxed, so that a checkout of an idle connection does not pay for the size of this.
        let mut turn = Box::pin(turn);
        tokio::select! {
            biased;
            () = generation.cancelled() => Err(PoolError::Closed),
            () = shared.retiring.cancelled() => Err(PoolError::Retired),
            outcome = &mut turn => outcome,
            () = sleep_until(deadline) => Err(shared.at_deadline()),
        }
    }

    /// Closes all connections at once, also those in use.
    ///
    /// Later ones belong to the next generation.
    pub(crate) fn close_now(&self) {
        self.shared.generation.swap(Arc::new(CancellationToken::new())).cancel();
    }

    /// Closes all connections for good, and opens no more.
    pub(crate) fn close(&self) {
        self.shared.generation.load().cancel();
    }

    /// Retires this pool in favour of another one.
    ///
    /// Idle connections end now, those in use end when they are returned, and waiting callers turn to the other pool.
    pub(crate) fn retire(&self) {
        self.shared.retired.store(true, Ordering::Release);
        self.shared.retiring.cancel();
        // A connection that is taken here is not kept when it is dropped.
        while self.shared.idle.take().is_some() {}
    }

    /// Returns `true` if it was [retired](Self::retire).
    pub(crate) fn is_retired(&self) -> bool {
        self.shared.retired.load(Ordering::Acquire)
    }

    /// Records that the node is up, so that a login may be tried again at once.
    pub(crate) fn on_up(&self) {
        self.shared.on_up();
    }

    /// Returns the number of connections that are handed out.
    pub(crate) fn leased(&self) -> u32 {
        self.shared.leased.load(Ordering::Acquire)
    }

    /// Returns the number of sessions in use, or abandoned and not ended.
    pub(crate) fn unfinished(&self) -> u32 {
        self.leased() + self.shared.ending.load(Ordering::Acquire)
    }

    /// Returns the number of connections, in use or idle.
    pub(crate) fn connections(&self) -> u32 {
        self.shared.idle.connections()
    }
}

impl Shared {
    /// Returns the caller's runtime, or the one that created the pool if there is none.
    ///
    /// The caller's comes first, because the other one may have ended.
    fn runtime(&self) -> Handle {
        Handle::try_current().unwrap_or_else(|_| self.home.clone())
    }

    /// Takes an idle connection, unless other callers are in front.
    fn take_idle(self: &Arc<Self>) -> Option<Slot> {
        if self.queue.is_empty() { self.idle.take().map(|pooled| Slot::new(pooled, self)) } else { None }
    }

    /// Returns the error for a caller that had no turn in time.
    fn at_deadline(&self) -> PoolError {
        if self.idle.connections() >= self.settings.max_size || self.gate.is_shut() {
            return PoolError::Exhausted;
        }
        self.queue.cause().map_or(PoolError::Connecting, PoolError::Connect)
    }
}

impl Drop for NodePool {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for NodePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodePool").field("connections", &self.connections()).finish_non_exhaustive()
    }
}

impl PooledConnection {
    fn new(link: WireConnection, settings: &PoolSettings) -> Self {
        // Later users expect the session's set-up.
        link.wire().forget_leftover();
        let jitter = settings.lifetime_jitter * fastrand::f64();
        let lifetime = settings.max_lifetime.mul_f64(1.0 - jitter);
        Self { link: Box::new(link), expires: Instant::now() + lifetime }
    }

    /// Returns `true` if the session is reusable and young enough for a next user.
    fn is_usable(&mut self, kind: SessionKind) -> bool {
        self.is_reusable(kind) && Instant::now() < self.expires
    }

    /// Returns `true` if the next user would find the session in its initial state.
    fn is_reusable(&mut self, kind: SessionKind) -> bool {
        !self.link.is_closed()
            && !self.link.is_cancelled()
            && match kind {
                SessionKind::Write => !self.link.wire().is_standby(),
                SessionKind::Read | SessionKind::Probe | SessionKind::Listen => {
                    !self.link.wire().writes_by_default()
                }
            }
            && self.link.wire().is_idle()
            && !self.link.is_in_transaction()
            && self.link.reclaim()
    }
}

/// The idle connections, in bb8.
struct Idle {
    pool: bb8::Pool<Keeper>,
    retired: Arc<AtomicBool>,
}

/// A connection that was taken out of bb8, which still counts it.
type Pooled = bb8::PooledConnection<'static, Keeper>;

/// Decides for bb8 which connections to keep.
struct Keeper {
    kind: SessionKind,
    retired: Arc<AtomicBool>,
}

/// The error for bb8 when it asks for a connection.
///
/// Only the queue opens connections.
#[derive(Debug)]
struct MadeElsewhere;

impl Idle {
    fn new(kind: SessionKind, settings: &PoolSettings, retired: Arc<AtomicBool>) -> Self {
        let pool = bb8::Pool::builder()
            // The queue limits them, and knows the ones being opened. bb8 would count its own attempts.
            .max_size(u32::MAX)
            .idle_timeout(settings.idle_timeout)
            .reaper_rate((settings.idle_timeout / 2).clamp(SHORTEST_REAPER_INTERVAL, LONGEST_REAPER_INTERVAL))
            // Lifetimes are jittered per connection.
            .max_lifetime(None)
            .retry_connection(false)
            // The connection used last is the one most surely alive, and the others may age out.
            .queue_strategy(bb8::QueueStrategy::Lifo)
            .build_unchecked(Keeper { kind, retired: Arc::clone(&retired) });
        Self { pool, retired }
    }

    /// Takes a usable connection, if there is one, and closes unusable ones.
    fn take(&self) -> Option<Pooled> {
        // Polled once, because bb8 has one at once or none.
        pin!(self.pool.get_owned()).now_or_never()?.ok()
    }

    /// Adds a connection that was opened.
    fn add(&self, link: PooledConnection) {
        if self.retired.load(Ordering::Acquire) {
            return;
        }
        // A connection that ended in the meantime is rejected, and there is always room.
        let _ = self.pool.add(link);
    }

    /// Returns the number of connections, including those taken out.
    fn connections(&self) -> u32 {
        self.pool.state().connections
    }
}

impl bb8::ManageConnection for Keeper {
    type Connection = PooledConnection;
    type Error = MadeElsewhere;

    async fn connect(&self) -> Result<PooledConnection, MadeElsewhere> {
        Err(MadeElsewhere)
    }

    async fn is_valid(&self, pooled: &mut PooledConnection) -> Result<(), MadeElsewhere> {
        if pooled.is_usable(self.kind) { Ok(()) } else { Err(MadeElsewhere) }
    }

    fn has_broken(&self, pooled: &mut PooledConnection) -> bool {
        self.retired.load(Ordering::Acquire) || !pooled.is_usable(self.kind)
    }
}
