//! The set of nodes, and the connections that it hands out.
//!
//! * [`ReplicaSet`]: connect, read, write, close
//! * `read`: a node for a read, and the next one if it fails
//! * `read_plan`: the order in which a read asks the nodes (pure)
//! * `await_position`: waits until a replica has replayed a position
//! * `write`: the primary, and waiting for one
//! * `run_read`, `run`: a read that survives its node, and one run of it
//! * `repeat`, `hedge`: when a read is run again, and when a slow one is also tried on a second node
//! * `budget`: a bound on hedges and repeats
//! * `run_write`, `resolve`: a transaction that is run again on a conflict, and one whose outcome is unknown
//! * [`listen`]: notifications of the primary, through failovers
//! * `remember`: keeps what outlives the program in a file
//! * `forget`: discards the history of the nodes, on an operator's decision
//! * `reconfigure`: nodes that come and go while traffic runs
//! * `supervise`: starts monitors again that have ended
//! * `report`: the health of the set, for people and for `/health`

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch as channel;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use self::budget::Budget;
pub use self::reconfigure::Reconfigured;
use self::remember::Keeper;
pub use self::report::{HealthReport, MemoryReport, NodeReport, Status};
pub use self::resolve::CommitOutcome;
use crate::config::{Config, NodeConfig};
use crate::error::{CheckoutError, Error, NodeFailure};
use crate::limit::Limit;
use crate::topology::{Health, NodeRole, NodeStatus, Topology};
use crate::topology::{Monitor, NodeView, Snapshot, TopologyState};
use crate::topology::{Node, NodeId};

mod await_position;
mod budget;
mod checkout;
mod forget;
mod hedge;
pub(crate) mod listen;
mod read;
mod read_plan;
mod reconfigure;
#[cfg(feature = "tower")]
mod refute;
mod remember;
mod repeat;
mod report;
mod rerun;
mod resolve;
mod run;
mod run_read;
mod run_write;
mod supervise;
mod write;

/// A primary and its replicas, behind typed connections.
///
/// Cloning is cheap, and all clones are one set. The background tasks end when the last clone is dropped, or with
/// [`close`](Self::close).
///
/// ```no_run
/// use pointsman::prelude::*;
/// use pointsman::{Config, ReplicaSet};
///
/// diesel::table! { users (id) { id -> Integer, name -> Text, } }
///
/// # async fn example() -> Result<(), pointsman::Error> {
/// let set = ReplicaSet::connect(Config::from_env()?).await?;
///
/// let conn = set.read().await?; // a replica, or the primary
/// let count: i64 = users::table.count().get_result(&conn).await?;
///
/// let conn = set.write().await?; // the one true primary
/// diesel::insert_into(users::table).values(users::name.eq("Ada")).execute(&conn).await?;
/// # let _ = count;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ReplicaSet {
    inner: Arc<Inner>,
}

struct Inner {
    live: ArcSwap<Live>,
    topology: Arc<TopologyState>,
    monitors: Mutex<Vec<Watch>>,
    /// Keeps the memory file, if one is configured.
    keeper: Mutex<Option<Keeper>>,
    /// `true` while monitors that have ended are being replaced.
    reviving: Arc<AtomicBool>,
    closed: CancellationToken,
    started: Instant,
    /// `true` if reads ignore causal tokens, which tests of the tests need.
    #[cfg(feature = "testkit")]
    ignores_tokens: AtomicBool,
}

/// The part of the set that a change of the configuration replaces.
struct Live {
    config: Arc<Config>,
    limits: Arc<Limits>,
}

/// Bounds for the whole set, kept through all changes of the configuration.
struct Limits {
    /// Permits for reads that fall back to the primary.
    fallback: Limit,
    /// Permits for callers that wait for a primary.
    waiters: Limit,
    hedges: Budget,
    repeats: Budget,
}

impl Limits {
    fn new(config: &Config) -> Self {
        Self {
            fallback: Limit::new(config.reads().max_fallback),
            waiters: Limit::new(config.writes().max_waiters),
            hedges: hedge::budget(config.reads()),
            repeats: repeat::budget(),
        }
    }

    /// Adopts a changed configuration; permits in use and spent budget still count.
    fn follow(&self, config: &Config) {
        self.fallback.resize(config.reads().max_fallback);
        self.waiters.resize(config.writes().max_waiters);
        self.hedges.set_share(config.reads().hedge_budget);
    }
}

impl ReplicaSet {
    /// Starts to monitor the configured nodes.
    ///
    /// Waits until every node was probed, or until `timeouts.connect` is over. The start succeeds even if nodes are
    /// down, and even if all are. To find out if there is a primary, call [`topology`](Self::topology) or
    /// [`health`](Self::health).
    ///
    /// # Errors
    ///
    /// [`Error::Node`] if a node's certificate files cannot be used.
    ///
    /// # Panics
    ///
    /// If called outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves nothing behind.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let config = Arc::new(config);
        let nodes =
            config.nodes().iter().map(|node| prepare(node, &config)).collect::<Result<Vec<_>, _>>()?;
        let topology = Arc::new(TopologyState::new(Arc::clone(&config), nodes.clone()));
        // Before the first probe, because what the file says decides which node may be the primary.
        let mut keeper = Keeper::start(config.memory_file(), &topology);
        if let Some(keeper) = &mut keeper {
            keeper.recalled(config.timeouts().connect).await;
        }
        let inner = Inner {
            keeper: Mutex::new(keeper),
            monitors: Mutex::new(nodes.iter().map(|node| watch(node, &topology, &config)).collect()),
            live: ArcSwap::from_pointee(Live { limits: Arc::new(Limits::new(&config)), config }),
            reviving: Arc::default(),
            topology,
            closed: CancellationToken::new(),
            started: Instant::now(),
            #[cfg(feature = "testkit")]
            ignores_tokens: AtomicBool::new(false),
        };
        let set = Self { inner: Arc::new(inner) };
        set.wait_until_probed().await;
        Ok(set)
    }

    /// Waits until every node was probed, up to a deadline.
    ///
    /// The monitors find the others later.
    async fn wait_until_probed(&self) {
        let config = self.config();
        let mut changes = self.watch();
        let all_seen =
            changes.wait_for(|topology| topology.nodes.iter().all(|node| node.health != Health::Unknown));
        let deadline = Instant::now() + config.timeouts().connect;
        let _ = timeout_at(deadline, all_seen).await;
        // A replica's lag is known only after the primary was probed as well.
        let is_measured = |node: &NodeStatus| node.role != NodeRole::Replica || node.serves_reads;
        let all_measured = changes.wait_for(|topology| topology.nodes.iter().all(is_measured));
        let _ = timeout_at(deadline.min(Instant::now() + config.probe().interval), all_measured).await;
    }

    /// Returns the roles of the nodes, as last observed. No probe is sent.
    pub fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.snapshot().topology)
    }

    /// Returns a receiver that changes with the topology.
    ///
    /// It changes when a role or a health does, not with every measurement.
    ///
    /// ```no_run
    /// # async fn example(set: pointsman::ReplicaSet) {
    /// let mut topology = set.watch();
    /// while topology.changed().await.is_ok() {
    ///     println!("{:?}", topology.borrow_and_update().primary);
    /// }
    /// # }
    /// ```
    pub fn watch(&self) -> channel::Receiver<Arc<Topology>> {
        self.inner.topology.changes()
    }

    /// Returns the health of the set, as a document for a health endpoint.
    pub fn health(&self) -> HealthReport {
        let snapshot = self.snapshot();
        let watched = self.is_up_to_date(&snapshot, Instant::now());
        let memory = self.keeper().as_ref().map(Keeper::report);
        HealthReport::of(&snapshot, self.inner.started.elapsed(), watched || self.is_closed(), memory)
    }

    /// Returns the configuration that the set runs with.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.inner.live.load().config)
    }

    /// Stops handing out connections, and waits until all are returned.
    ///
    /// # Errors
    ///
    /// [`Error::Close`] if some are still in use after `timeouts.shutdown`; these are closed at once.
    ///
    /// # Cancel safety
    ///
    /// The set stays closed if the future is dropped.
    pub async fn close(&self) -> Result<(), Error> {
        self.inner.closed.cancel();
        let live = self.live();
        live.limits.fallback.close();
        live.limits.waiters.close();
        let limit = live.config.timeouts().shutdown;
        let deadline = Instant::now() + limit;
        // Removed nodes and earlier settings are included, because no connection may outlive this call.
        let nodes = self.inner.topology.nodes();
        let leased = || nodes.iter().map(|node| node.leased()).sum::<u32>();
        // Abandoned statements are cancelled at the server before the program ends.
        let unfinished = || nodes.iter().map(|node| node.unfinished()).sum::<u32>();
        while unfinished() > 0 && Instant::now() < deadline {
            // Returning a connection sends no signal, so poll. This happens rarely, and only at the end.
            sleep(Duration::from_millis(5)).await;
        }
        let connections = leased();
        self.monitors().clear();
        for node in &nodes {
            node.close();
        }
        if connections > 0 { Err(Error::Close { connections, after: limit }) } else { Ok(()) }
    }

    /// Returns `true` if [`close`](Self::close) was called on the set or a clone.
    pub fn is_closed(&self) -> bool {
        self.inner.closed.is_cancelled()
    }

    fn monitors(&self) -> MutexGuard<'_, Vec<Watch>> {
        self.inner.monitors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keeper(&self) -> MutexGuard<'_, Option<Keeper>> {
        self.inner.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> Arc<Live> {
        self.inner.live.load_full()
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.topology.snapshot()
    }

    fn check_open(&self) -> Result<(), CheckoutError> {
        if self.inner.closed.is_cancelled() { Err(CheckoutError::Closed) } else { Ok(()) }
    }

    /// Waits for a connection as long as the set is open.
    ///
    /// If the set closes while this waits, the connection is returned, so that `close` can finish.
    async fn while_open<T>(
        &self,
        checkout: impl Future<Output = Result<T, CheckoutError>>,
    ) -> Result<T, CheckoutError> {
        tokio::select! {
            biased;
            outcome = checkout => {
                self.check_open()?;
                outcome
            }
            () = self.inner.closed.cancelled() => Err(CheckoutError::Closed),
        }
    }
}

impl fmt::Debug for ReplicaSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaSet").field("topology", &self.topology()).finish_non_exhaustive()
    }
}

/// Builds the node of a configuration.
fn prepare(node: &NodeConfig, config: &Config) -> Result<Arc<Node>, Error> {
    Node::new(node, config)
        .map(Arc::new)
        .map_err(|source| Error::Node { node: node.name().to_owned(), source })
}

/// A monitor and its node.
struct Watch {
    node: NodeId,
    _monitor: Monitor,
}

/// Starts a monitor for a node.
fn watch(node: &Arc<Node>, topology: &Arc<TopologyState>, config: &Config) -> Watch {
    let (probe, backoff) = (config.probe().clone(), config.backoff().clone());
    Watch { node: node.id(), _monitor: Monitor::start(Arc::clone(node), topology, probe, backoff) }
}

/// Returns the last known state of each node, for an error.
fn failures(snapshot: &Snapshot, tried: &[NodeFailure]) -> Vec<NodeFailure> {
    let of = |(node, view): (&NodeStatus, &NodeView)| {
        let known = view.connect_error().cloned();
        let reason = match &node.reason {
            Some(reason) => format!("{} ({}): {reason}", node.role, node.health),
            None => format!("{} ({})", node.role, node.health),
        };
        match tried.iter().rev().find(|failure| failure.node == node.name).cloned() {
            // A timeout explains less than the error with which the server rejects all logins.
            Some(tried) if tried.error.is_none() && known.is_some() => {
                NodeFailure { reason: format!("{}; {reason}", tried.reason), error: known, ..tried }
            }
            Some(tried) => tried,
            None => NodeFailure { node: node.name.clone(), reason, error: known },
        }
    };
    snapshot.topology.nodes.iter().zip(&snapshot.nodes).map(of).collect()
}
