//! The pools: one per node and intent. The only file that names bb8.
//!
//! bb8 keeps the idle connections, checks them when they are taken and when they come back, and closes those that
//! no caller uses. The rest is done here: whose turn it is, when a connection is made and what becomes of the callers when
//! that fails, and how a pool's connections are severed as one.
//!
//! * [`NodePool`]: take a connection, sever all of them
//! * `gate`: as many callers at once as there may be connections, first in, first out
//! * `queue`: callers past the gate that wait for a connection to be made or returned
//! * `breaker`: when a login may be tried again after one failed (pure)
//! * `lease`: a connection that is handed out, and how it goes back
//! * `reset`: a session on which its user set something, before the next one gets it
//! * `canceller`: cancelling what a connection runs, on behalf of its user
//! * `outside`: a session outside of the pool that ends with the pool's own
//! * `ending`: a session that was given up, until the server has ended it
//!
//! A connection is judged by what its own wire has shown, so a checkout makes no round trip.

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

/// Why a pool had no connection to give.
#[derive(Debug)]
pub(crate) enum PoolError {
    /// No session could be opened, and there is none whose return is worth waiting for.
    Connect(Arc<ConnectError>),
    /// All connections were in use until the deadline, or at all if the caller joins no queue.
    Exhausted,
    /// A connection was still in the making at the deadline.
    Connecting,
    /// The pool was severed while the caller waited.
    Severed,
    /// Another pool has taken the place of this one, whose settings changed.
    Retired,
}

/// What both pools of a node may do at once: a node that comes back, or is slow, is not stormed.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Connections in the making.
    connects: Limit,
    /// Cancel requests, each of which is a connection of its own for a moment.
    cancels: Limit,
}

impl Limits {
    pub(crate) fn new(settings: &PoolSettings) -> Self {
        let limit = settings.max_concurrent_connects;
        Self { connects: Limit::new(limit), cancels: Limit::new(limit) }
    }

    /// Follows other settings; what is under way counts.
    pub(crate) fn resize(&self, settings: &PoolSettings) {
        self.connects.resize(settings.max_concurrent_connects);
        self.cancels.resize(settings.max_concurrent_connects);
    }
}

/// A pool of connections to one node for one intent.
pub(crate) struct NodePool {
    shared: Arc<Shared>,
}

/// What the pool and its connections have in common.
struct Shared {
    dialer: Arc<Dialer>,
    kind: SessionKind,
    settings: PoolSettings,
    stats: Arc<NodeStats>,
    limits: Arc<Limits>,
    /// Cancelled to end every connection of the present generation; then replaced by the next one's.
    generation: ArcSwap<CancellationToken>,
    /// Shared with the pools whose place this one took.
    gate: Gate,
    /// Another pool has taken its place: it hands nothing out, and keeps nothing that comes back.
    retired: Arc<AtomicBool>,
    /// Cancelled with it, for the callers that wait.
    retiring: CancellationToken,
    idle: Idle,
    queue: Queue,
    /// Connections that are handed out.
    leased: AtomicU32,
    /// Sessions that are not handed out, and have not ended.
    ending: AtomicU32,
    /// Where the pool was made: a connection may be returned by code that runs on no runtime.
    home: Handle,
}

/// A link in a pool, with the instant at which it is too old.
///
/// The link is boxed, because it is large and its lease is moved about with every checkout.
struct PooledConnection {
    link: Box<WireConnection>,
    expires: Instant,
}

/// Idle connections are looked for twice in their timeout, and within these bounds: the longer one is bb8's own
/// interval, the shorter one keeps a pool of tiny timeouts from being busy with that.
const SHORTEST_REAPER_INTERVAL: Duration = Duration::from_millis(50);
const LONGEST_REAPER_INTERVAL: Duration = Duration::from_secs(30);

impl NodePool {
    /// Makes an empty pool; it connects when somebody asks.
    ///
    /// `delays` are the waits after failed logins.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
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

    /// Takes a connection, waiting until the deadline for one to be free or to be made. Callers are served in turn.
    ///
    /// # Cancel safety
    ///
    /// A dropped future takes nothing; a connection that was in the making for it goes to the pool.
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

    /// Takes an idle connection that no caller waits for; none is made.
    pub(crate) fn try_idle(&self) -> Option<Lease> {
        let pass = self.shared.gate.try_enter()?;
        self.shared.take_idle().map(|slot| Lease::new(slot, pass))
    }

    /// Waits at the gate, if the caller is not past it, and then in the queue.
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
                None => shared.join_queue().await.unwrap_or(Err(PoolError::Severed))?,
            };
            Ok(Lease::new(slot, pass))
        };
        // Boxed, so that a checkout of an idle connection does not pay for the size of this.
        let mut turn = Box::pin(turn);
        tokio::select! {
            biased;
            () = generation.cancelled() => Err(PoolError::Severed),
            () = shared.retiring.cancelled() => Err(PoolError::Retired),
            outcome = &mut turn => outcome,
            () = sleep_until(deadline) => Err(shared.at_deadline()),
        }
    }

    /// Ends every connection at once, those in use as well; later ones are of the next generation.
    pub(crate) fn close_now(&self) {
        self.shared.generation.swap(Arc::new(CancellationToken::new())).cancel();
    }

    /// Ends every connection for good: none is made any more.
    pub(crate) fn close(&self) {
        self.shared.generation.load().cancel();
    }

    /// Makes place for another pool: idle connections end, those in use do when they are returned, and callers that
    /// wait turn to the other one.
    pub(crate) fn retire(&self) {
        self.shared.retired.store(true, Ordering::Release);
        self.shared.retiring.cancel();
        // What is taken now is not kept when it is dropped.
        while self.shared.idle.take().is_some() {}
    }

    /// Returns `true` if it was [retired](Self::retire).
    pub(crate) fn is_retired(&self) -> bool {
        self.shared.retired.load(Ordering::Acquire)
    }

    /// The node is known to be well, so that a login may be tried again at once.
    pub(crate) fn on_well(&self) {
        self.shared.on_well();
    }

    /// How many connections are handed out.
    pub(crate) fn leased(&self) -> u32 {
        self.shared.leased.load(Ordering::Acquire)
    }

    /// How many sessions are handed out, or were given up and have not ended.
    pub(crate) fn unfinished(&self) -> u32 {
        self.leased() + self.shared.ending.load(Ordering::Acquire)
    }

    /// How many connections there are, in use or idle.
    pub(crate) fn connections(&self) -> u32 {
        self.shared.idle.connections()
    }
}

impl Shared {
    /// Returns the caller's runtime, since the one of before may have ended; without one, that on which the pool was made.
    fn runtime(&self) -> Handle {
        Handle::try_current().unwrap_or_else(|_| self.home.clone())
    }

    /// Takes an idle connection, unless there are callers whose turn it is.
    fn take_idle(self: &Arc<Self>) -> Option<Slot> {
        if self.queue.is_empty() { self.idle.take().map(|pooled| Slot::new(pooled, self)) } else { None }
    }

    /// What a caller hears that had no turn in time.
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
        // Its set-up is what later users expect.
        link.wire().forget_leftover();
        let jitter = settings.lifetime_jitter * fastrand::f64();
        let lifetime = settings.max_lifetime.mul_f64(1.0 - jitter);
        Self { link: Box::new(link), expires: Instant::now() + lifetime }
    }

    /// Returns `true` if the next user would find it as the first one did, and for a while.
    fn is_usable(&mut self, kind: SessionKind) -> bool {
        self.is_sound(kind) && Instant::now() < self.expires
    }

    /// Whether the next user would find it as the first one did.
    fn is_sound(&mut self, kind: SessionKind) -> bool {
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

/// Tells bb8 which connections are worth keeping.
struct Keeper {
    kind: SessionKind,
    retired: Arc<AtomicBool>,
}

/// What bb8 hears when it asks for a connection: they are made by the queue, which knows for whom.
#[derive(Debug)]
struct MadeElsewhere;

impl Idle {
    fn new(kind: SessionKind, settings: &PoolSettings, retired: Arc<AtomicBool>) -> Self {
        let pool = bb8::Pool::builder()
            // The queue bounds them, and knows of those that are being made. bb8 would count its own attempts.
            .max_size(u32::MAX)
            .idle_timeout(settings.idle_timeout)
            .reaper_rate((settings.idle_timeout / 2).clamp(SHORTEST_REAPER_INTERVAL, LONGEST_REAPER_INTERVAL))
            // Lifetimes are jittered per connection.
            .max_lifetime(None)
            .retry_connection(false)
            // The connection that was used last is the one that is surely alive, and the others may age out.
            .queue_strategy(bb8::QueueStrategy::Lifo)
            .build_unchecked(Keeper { kind, retired: Arc::clone(&retired) });
        Self { pool, retired }
    }

    /// Takes a usable connection, if there is one; the unusable ones on its way are closed.
    fn take(&self) -> Option<Pooled> {
        // Polled once: bb8 has one at once, or none.
        pin!(self.pool.get_owned()).now_or_never()?.ok()
    }

    /// Adds a connection that was made.
    fn add(&self, link: PooledConnection) {
        if self.retired.load(Ordering::Acquire) {
            return;
        }
        // One that ended meanwhile is refused, and there is always room.
        let _ = self.pool.add(link);
    }

    /// How many there are, those that were taken out as well.
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
