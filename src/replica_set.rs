//! The set of nodes, and the connections that it hands out.
//!
//! * [`ReplicaSet`]: connect, read, write, close
//! * `read`: a node for a read, and the next one if it fails
//! * `write`: the primary, and waiting for one
//! * `run_read`, `run`, `repeat`, `hedge`: a read that survives its node, one run of it, when it is run again, and when a slow one is
//!   tried twice
//! * `budget`: what second tries and repeats may cost
//! * `run_write`, `resolve`: a transaction that is run again on a conflict, and one whose outcome is unknown
//! * [`listen`]: notifications of the primary, through failovers
//! * `forget`: the operator's word that ends what is remembered of the nodes
//! * `reconfigure`: nodes that come and go while traffic runs
//! * `supervise`: monitors that have ended, and are started again
//! * `report`: how everything is, for people and for `/health`

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
pub use self::report::{HealthReport, NodeReport, Status};
pub use self::resolve::CommitOutcome;
use crate::config::{Config, NodeConfig};
use crate::error::{CheckoutError, Error, NodeFailure};
use crate::limit::Limit;
use crate::topology::{Health, NodeRole, NodeStatus, Topology};
use crate::topology::{Monitor, NodeView, Snapshot, TopologyState};
use crate::topology::{Node, NodeId};

mod budget;
mod checkout;
mod forget;
mod hedge;
pub mod listen;
mod read;
mod reconfigure;
mod repeat;
mod report;
mod resolve;
mod run;
mod run_read;
mod run_write;
mod supervise;
mod write;

/// A primary and its replicas, behind typed connections.
///
/// It is cheap to clone; all clones are one set. The background tasks end with the last of them, or with
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
    /// Whether monitors that have ended are being replaced.
    reviving: Arc<AtomicBool>,
    closed: CancellationToken,
    started: Instant,
}

/// What a change of the configuration replaces.
struct Live {
    config: Arc<Config>,
    limits: Arc<Limits>,
}

/// What is bounded for the whole set, through all changes of the configuration.
struct Limits {
    /// Places for reads that fall back to the primary.
    fallback: Limit,
    /// Places for callers that wait for a primary.
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

    /// Follows a change of the configuration; what is held or was spent still counts.
    fn follow(&self, config: &Config) {
        self.fallback.resize(config.reads().max_fallback);
        self.waiters.resize(config.writes().max_waiters);
        self.hedges.set_share(config.reads().hedge_budget);
    }
}

impl ReplicaSet {
    /// Starts to look after the configured nodes.
    ///
    /// It waits until every node has been looked at, or until `timeouts.connect` is over: a node
    /// that is down does not stop the start, nor do all of them. Whether there is a primary is what
    /// [`topology`](Self::topology) and [`health`](Self::health) tell.
    ///
    /// # Errors
    ///
    /// [`Error::Node`] where a node's certificate files cannot be used.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves nothing behind.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let config = Arc::new(config);
        let nodes =
            config.nodes().iter().map(|node| prepare(node, &config)).collect::<Result<Vec<_>, _>>()?;
        let topology = Arc::new(TopologyState::new(Arc::clone(&config), nodes.clone()));
        let inner = Inner {
            monitors: Mutex::new(nodes.iter().map(|node| watch(node, &topology, &config)).collect()),
            live: ArcSwap::from_pointee(Live { limits: Arc::new(Limits::new(&config)), config }),
            reviving: Arc::default(),
            topology,
            closed: CancellationToken::new(),
            started: Instant::now(),
        };
        let set = Self { inner: Arc::new(inner) };
        set.settled().await;
        Ok(set)
    }

    /// Waits until every node was looked at, within bounds; whoever is not there by then is left to its monitor.
    async fn settled(&self) {
        let config = self.config();
        let mut changes = self.watch();
        let all_seen =
            changes.wait_for(|topology| topology.nodes.iter().all(|node| node.health != Health::Unknown));
        let deadline = Instant::now() + config.timeouts().connect;
        let _ = timeout_at(deadline, all_seen).await;
        // How fresh a replica is can be told only once the primary was seen as well.
        let judged = |node: &NodeStatus| node.role != NodeRole::Replica || node.serves_reads;
        let all_judged = changes.wait_for(|topology| topology.nodes.iter().all(judged));
        let _ = timeout_at(deadline.min(Instant::now() + config.probe().interval), all_judged).await;
    }

    /// The roles of the nodes, as they were last seen. It asks nobody.
    pub fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.snapshot().topology)
    }

    /// Follows the topology: the receiver changes when a role or a health does, not with every measurement.
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

    /// How everything is: the document of a health endpoint.
    pub fn health(&self) -> HealthReport {
        let snapshot = self.snapshot();
        let watched = self.is_up_to_date(&snapshot, Instant::now());
        HealthReport::of(&snapshot, self.inner.started.elapsed(), watched || self.is_closed())
    }

    /// The configuration that the set runs with.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.inner.live.load().config)
    }

    /// Stops handing out connections, and waits until all are returned.
    ///
    /// # Errors
    ///
    /// [`Error::Close`] where some are still in use after `timeouts.shutdown`; those are severed.
    ///
    /// # Cancel safety
    ///
    /// The set stays closed when the future is dropped.
    pub async fn close(&self) -> Result<(), Error> {
        self.inner.closed.cancel();
        let live = self.live();
        live.limits.fallback.close();
        live.limits.waiters.close();
        let limit = live.config.timeouts().shutdown;
        let deadline = Instant::now() + limit;
        // Removed nodes and earlier settings as well: nothing may run on when this returns.
        let nodes = self.inner.topology.nodes();
        let leased = || nodes.iter().map(|node| node.leased()).sum::<u32>();
        // What was given up is ended at the server before the program is.
        let unfinished = || nodes.iter().map(|node| node.unfinished()).sum::<u32>();
        while unfinished() > 0 && Instant::now() < deadline {
            // Connections come back without a word; this is asked rarely, and only at the end.
            sleep(Duration::from_millis(5)).await;
        }
        let connections = leased();
        self.monitors().clear();
        for node in &nodes {
            node.close();
        }
        if connections > 0 { Err(Error::Close { connections, after: limit }) } else { Ok(()) }
    }

    /// Whether [`close`](Self::close) was called on this set or a clone of it.
    pub fn is_closed(&self) -> bool {
        self.inner.closed.is_cancelled()
    }

    fn monitors(&self) -> MutexGuard<'_, Vec<Watch>> {
        self.inner.monitors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> Arc<Live> {
        self.inner.live.load_full()
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.topology.snapshot()
    }

    fn check_open(&self) -> Result<(), CheckoutError> {
        if self.inner.closed.is_cancelled() { Err(CheckoutError::Closed) } else { Ok(()) }
    }

    /// Waits for a connection as long as the set is open.
    ///
    /// One that is had as the set closes goes back: whoever closes waits for what is in use, and that must come to an end.
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

/// Makes the node of a configuration.
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

/// What is known of each node, for an error.
fn failures(snapshot: &Snapshot, tried: &[NodeFailure]) -> Vec<NodeFailure> {
    let of = |(node, view): (&NodeStatus, &NodeView)| {
        let known = view.connect_error().cloned();
        let reason = match &node.reason {
            Some(reason) => format!("{} ({}): {reason}", node.role, node.health),
            None => format!("{} ({})", node.role, node.health),
        };
        match tried.iter().rev().find(|failure| failure.node == node.name).cloned() {
            // That nothing came of it in time says less than why the server refuses everyone.
            Some(tried) if tried.error.is_none() && known.is_some() => {
                NodeFailure { reason: format!("{}; {reason}", tried.reason), error: known, ..tried }
            }
            Some(tried) => tried,
            None => NodeFailure { node: node.name.clone(), reason, error: known },
        }
    };
    snapshot.topology.nodes.iter().zip(&snapshot.nodes).map(of).collect()
}
