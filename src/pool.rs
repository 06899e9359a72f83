//! The pools: one per node and intent. The only file that names bb8.
//!
//! bb8 queues callers, bounds the number of connections and reaps idle ones. What it doesn't do is
//! done here: a caller whose connection attempt fails is told at once (bb8 lets it wait
//! out its timeout), lifetimes are jittered, attempts are bounded, and a pool's connections can be severed as one.
//!
//! A connection is judged by what its own wire has shown, so a checkout makes no round trip.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::PoolSettings;
use crate::error::ConnectError;
use crate::link::{Dialer, Link, Purpose};
use crate::node::Vitals;

/// Why a pool had no connection to give.
#[derive(Debug)]
pub(crate) enum PoolError {
    /// An attempt to connect failed.
    Connect(Arc<ConnectError>),
    /// All connections were in use until the deadline.
    Exhausted,
    /// A connection was still in the making at the deadline.
    Connecting,
    /// The pool was severed while the caller waited.
    Severed,
}

/// A pool of connections to one node for one intent.
pub(crate) struct NodePool {
    pool: bb8::Pool<Manager>,
    shared: Arc<Shared>,
}

/// What the pool and its connections have in common.
struct Shared {
    dialer: Arc<Dialer>,
    purpose: Purpose,
    settings: PoolSettings,
    vitals: Arc<Vitals>,
    /// Shared by both pools of a node: a node that comes back is not stormed.
    connects: Arc<Semaphore>,
    /// Cancelled to end every connection of the present generation; then replaced by the next one's.
    generation: ArcSwap<CancellationToken>,
    /// The last attempt that failed; a change of it ends the wait of every caller.
    failure: watch::Sender<Option<Arc<ConnectError>>>,
    /// Connections that are handed out.
    leased: AtomicU32,
}

/// A link in a pool, with the instant at which it is too old.
///
/// The link is boxed, because it is large and its lease is moved about with every checkout.
pub(crate) struct PooledLink {
    link: Box<Link>,
    expires: Instant,
}

struct Manager {
    shared: Arc<Shared>,
}

/// Idle connections are looked for twice in their timeout, and within these bounds: the longer one is bb8's own
/// interval, the shorter one keeps a pool of tiny timeouts from being busy with that.
const SHORTEST_REAPER_INTERVAL: Duration = Duration::from_millis(50);
const LONGEST_REAPER_INTERVAL: Duration = Duration::from_secs(30);

impl NodePool {
    /// Makes an empty pool; it connects when somebody asks.
    pub(crate) fn new(
        dialer: Arc<Dialer>,
        purpose: Purpose,
        settings: &PoolSettings,
        vitals: Arc<Vitals>,
        connects: Arc<Semaphore>,
    ) -> Self {
        let shared = Arc::new(Shared {
            dialer,
            purpose,
            settings: settings.clone(),
            vitals,
            connects,
            generation: ArcSwap::from_pointee(CancellationToken::new()),
            failure: watch::Sender::new(None),
            leased: AtomicU32::new(0),
        });
        let pool = bb8::Pool::builder()
            .max_size(settings.max_size)
            .idle_timeout(settings.idle_timeout)
            .reaper_rate((settings.idle_timeout / 2).clamp(SHORTEST_REAPER_INTERVAL, LONGEST_REAPER_INTERVAL))
            // Lifetimes are jittered per connection, and callers have deadlines of their own.
            .max_lifetime(None)
            .connection_timeout(Duration::from_secs(24 * 60 * 60))
            // A failed attempt is reported to whoever waits; when to try again is the set's decision.
            .retry_connection(false)
            // The connection that was used last is the one that is surely alive, and the others may age out.
            .queue_strategy(bb8::QueueStrategy::Lifo)
            .build_unchecked(Manager { shared: Arc::clone(&shared) });
        Self { pool, shared }
    }

    /// Takes a connection, waiting until the deadline for one to be free or to be made.
    ///
    /// # Cancel safety
    ///
    /// A dropped future takes nothing; a connection that was in the making for it goes to the pool.
    pub(crate) async fn get(&self, deadline: Instant) -> Result<Lease, PoolError> {
        let mut failure = self.shared.failure.subscribe();
        let generation = self.shared.generation.load_full();
        // Pinned where they are made, since to move them costs more than what they do when a connection is idle.
        let mut get = pin!(self.pool.get_owned());
        let wait = pin!(async {
            loop {
                tokio::select! {
                    biased;
                    got = &mut get => return got.map_err(|_| PoolError::Exhausted),
                    Ok(()) = failure.changed() => {
                        let error = failure.borrow_and_update().clone();
                        // A full server is not a dead one: a connection that we have may come back.
                        let wait_on = matches!(error.as_deref(), Some(ConnectError::Full(_)))
                            && self.pool.state().connections > 0;
                        if let (Some(error), false) = (error, wait_on) {
                            return Err(PoolError::Connect(error));
                        }
                    }
                    () = generation.cancelled() => return Err(PoolError::Severed),
                }
            }
        });
        let pooled = match tokio::time::timeout_at(deadline, wait).await {
            Ok(outcome) => outcome?,
            Err(_) if self.is_full() => return Err(PoolError::Exhausted),
            Err(_) => return Err(PoolError::Connecting),
        };
        self.shared.leased.fetch_add(1, Ordering::AcqRel);
        Ok(Lease { pooled: Some(pooled), shared: Arc::clone(&self.shared), permit: None })
    }

    /// Ends every connection at once, those in use as well; later ones are of the next generation.
    pub(crate) fn sever(&self) {
        self.shared.generation.swap(Arc::new(CancellationToken::new())).cancel();
    }

    /// Ends every connection for good: none is made any more.
    pub(crate) fn close(&self) {
        self.shared.generation.load().cancel();
    }

    /// How many connections are handed out.
    pub(crate) fn leased(&self) -> u32 {
        self.shared.leased.load(Ordering::Acquire)
    }

    /// How many connections there are, in use or idle.
    pub(crate) fn connections(&self) -> u32 {
        self.pool.state().connections
    }

    fn is_full(&self) -> bool {
        self.leased() >= self.shared.settings.max_size
    }
}

impl Drop for NodePool {
    fn drop(&mut self) {
        self.shared.generation.load().cancel();
    }
}

impl fmt::Debug for NodePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodePool").field("state", &self.pool.state()).finish()
    }
}

impl bb8::ManageConnection for Manager {
    type Connection = PooledLink;
    type Error = Arc<ConnectError>;

    async fn connect(&self) -> Result<PooledLink, Self::Error> {
        let shared = &self.shared;
        let generation = shared.generation.load_full();
        let dial = async {
            let _permit = shared.connects.acquire().await.map_err(|_| ConnectError::Abandoned)?;
            let (dialer, vitals) = (&shared.dialer, Arc::clone(&shared.vitals));
            dialer.dial(shared.purpose, dialer.limit(), vitals, generation.child_token()).await
        };
        let outcome = tokio::select! {
            outcome = dial => outcome,
            () = generation.cancelled() => Err(ConnectError::Abandoned),
        };
        match outcome {
            Ok(link) => {
                let jitter = shared.settings.lifetime_jitter * fastrand::f64();
                let lifetime = shared.settings.max_lifetime.mul_f64(1.0 - jitter);
                Ok(PooledLink { link: Box::new(link), expires: Instant::now() + lifetime })
            }
            Err(error) => {
                if !error.proves_alive() {
                    shared.vitals.suspect();
                }
                let error = Arc::new(error);
                shared.failure.send_replace(Some(Arc::clone(&error)));
                Err(error)
            }
        }
    }

    async fn is_valid(&self, pooled: &mut PooledLink) -> Result<(), Self::Error> {
        if pooled.is_usable(self.shared.purpose) { Ok(()) } else { Err(Arc::new(ConnectError::Abandoned)) }
    }

    fn has_broken(&self, pooled: &mut PooledLink) -> bool {
        !pooled.is_usable(self.shared.purpose)
    }
}

impl PooledLink {
    /// Whether the next user would find it as the first one did.
    fn is_usable(&mut self, purpose: Purpose) -> bool {
        !self.link.is_over()
            && (purpose == Purpose::Write || !self.link.wire().writes_by_default())
            && self.link.wire().is_idle()
            && !self.link.is_in_transaction()
            && Instant::now() < self.expires
    }
}

/// A connection that is handed out, and goes back when it is dropped.
pub(crate) struct Lease {
    /// Always there, until it is dropped.
    pooled: Option<bb8::PooledConnection<'static, Manager>>,
    shared: Arc<Shared>,
    /// A place among the reads that may fall back to the primary.
    permit: Option<OwnedSemaphorePermit>,
}

/// How long an answer that is still owed may take before its statement is cancelled.
///
/// The rest of a result whose first row was enough comes within this; a statement whose future was dropped may run on.
const SETTLE: Duration = Duration::from_millis(20);

/// The same for a node that is far away or slow.
const SETTLE_FAR: Duration = Duration::from_millis(250);

/// Over a long way even an answer that was given at once takes longer.
fn settle(vitals: &Vitals) -> Duration {
    (vitals.latency.average().unwrap_or_default() * 2).clamp(SETTLE, SETTLE_FAR)
}

/// How long a cancelled statement may take to end before its connection is dropped.
const CANCELLED: Duration = Duration::from_secs(1);

impl Lease {
    /// Holds a permit for as long as the connection is handed out.
    pub(crate) fn with_permit(mut self, permit: OwnedSemaphorePermit) -> Self {
        self.permit = Some(permit);
        self
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.leased.fetch_sub(1, Ordering::AcqRel);
        let Some(pooled) = self.pooled.take() else { return };
        let wire = pooled.link.wire();
        if pooled.link.is_over() || !wire.owes() {
            return;
        }
        // The connection goes back when its statement has ended, so that the next user need not wait for it.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(finish(pooled, Arc::clone(&self.shared)));
            }
            Err(_) => pooled.link.sever(),
        }
    }
}

/// Waits for what a connection still owes and gives it back; if that takes long, cancels the statement and ends it.
async fn finish(pooled: bb8::PooledConnection<'static, Manager>, shared: Arc<Shared>) {
    let wire = Arc::clone(pooled.link.wire());
    if timeout(settle(&shared.vitals), wire.settled()).await.is_ok() {
        return;
    }
    let cancelled = async {
        // The answer tells whether it worked; an error of the attempt itself only costs the connection.
        let _ = shared.dialer.cancel(pooled.link.cancel_token()).await;
        wire.settled().await;
    };
    let _ = timeout(CANCELLED, cancelled).await;
    // A cancel request has no answer. If it arrives late, it ends whatever runs on the session then, so
    // the session must have no next user.
    pooled.link.sever();
}

impl Deref for Lease {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.pooled.as_ref().expect("a lease has its connection until it is dropped").link
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Link {
        &mut self.pooled.as_mut().expect("a lease has its connection until it is dropped").link
    }
}
