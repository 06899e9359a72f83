//! One server: its settings, its pools and its statistics.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::backoff::Backoff;
use crate::config::{Config, NodeConfig, PoolSettings, TimeoutSettings};
use crate::error::ConnectError;
use crate::pool::{Gate, Lease, Limits, NodePool};
use crate::stats::{NodeStats, P99Estimator};
use crate::wire::{Dialer, SessionKind};

/// Identity of a server, until its host, port or database changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct NodeId(u64);

impl NodeId {
    /// Returns an id that no other node of this process has.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// One server of the set, with the settings of one configuration.
///
/// When the settings change, another `Node` of the same server [succeeds](Node::succeed) this one, with the same
/// identity. The successor takes over the statistics, and earlier connections until they are returned.
pub(crate) struct Node {
    config: NodeConfig,
    dialer: Arc<Dialer>,
    pool: PoolSettings,
    timeouts: TimeoutSettings,
    /// Pauses between failed logins.
    backoff: Backoff,
    server: Arc<Server>,
    read_pool: Arc<NodePool>,
    /// Present only while the node is the primary.
    write_pool: ArcSwapOption<NodePool>,
    /// Replaced pools, as long as connections of them are in use.
    retired: Mutex<Vec<Retired>>,
}

/// The part of a node that stays when the settings change.
struct Server {
    id: NodeId,
    stats: Arc<NodeStats>,
    read_times: P99Estimator,
    limits: Arc<Limits>,
    reads: Gate,
    /// Replaced at each fencing, because closed sessions hold no slot.
    writes: ArcSwap<Gate>,
    /// The newest dialer, for the monitor.
    dialer: ArcSwap<Dialer>,
}

/// A replaced pool.
#[derive(Debug, Clone)]
pub(crate) struct Retired {
    kind: SessionKind,
    pool: Arc<NodePool>,
}

impl Retired {
    /// Returns the number of its connections in use.
    pub(crate) fn leased(&self) -> u32 {
        self.pool.leased()
    }
}

impl Node {
    /// Prepares a node, without any connection yet.
    ///
    /// # Errors
    ///
    /// Fails if a certificate file cannot be used.
    pub(crate) fn new(node: &NodeConfig, config: &Config) -> Result<Self, ConnectError> {
        let dialer = Arc::new(Dialer::new(node.clone(), config.timeouts().clone(), config.probe().timeout)?);
        let server = Arc::new(Server {
            id: NodeId::next(),
            stats: Arc::default(),
            read_times: P99Estimator::default(),
            limits: Arc::new(Limits::new(config.pool())),
            reads: Gate::new(config.pool().max_size),
            writes: ArcSwap::from_pointee(Gate::new(config.pool().max_size)),
            dialer: ArcSwap::new(Arc::clone(&dialer)),
        });
        Ok(Self::with(node, config, dialer, server, None))
    }

    /// Prepares the same server with other settings.
    ///
    /// The present node does not change yet.
    ///
    /// # Errors
    ///
    /// The same as for [`new`](Self::new).
    pub(crate) fn succeed(&self, node: &NodeConfig, config: &Config) -> Result<Self, ConnectError> {
        // A removed node may come back before it has drained, and its pools hand out no more connections.
        let same_sessions = !self.read_pool.is_retired()
            && self.config.has_same_sessions(node)
            && self.pool == *config.pool()
            && self.timeouts == *config.timeouts()
            && self.backoff == *config.backoff();
        let dialer = Arc::new(Dialer::new(node.clone(), config.timeouts().clone(), config.probe().timeout)?);
        let pool = same_sessions.then(|| Arc::clone(&self.read_pool));
        Ok(Self::with(node, config, dialer, Arc::clone(&self.server), pool))
    }

    fn with(
        node: &NodeConfig,
        config: &Config,
        dialer: Arc<Dialer>,
        server: Arc<Server>,
        read_pool: Option<Arc<NodePool>>,
    ) -> Self {
        let (pool, backoff) = (config.pool().clone(), config.backoff().clone());
        let read_pool = read_pool.unwrap_or_else(|| {
            let gate = server.reads.clone();
            Arc::new(new_pool(&server, &dialer, SessionKind::Read, &pool, &backoff, gate))
        });
        Self {
            config: node.clone(),
            dialer,
            pool,
            timeouts: config.timeouts().clone(),
            backoff,
            server,
            read_pool,
            write_pool: ArcSwapOption::empty(),
            retired: Mutex::default(),
        }
    }

    /// Takes over from the preceding node; returns the replaced pools.
    ///
    /// [Retire](Self::retire) them when no caller is sent there any more.
    pub(crate) fn take_over(&self, before: &Self) -> Vec<Retired> {
        self.server.limits.resize(&self.pool);
        self.server.reads.resize(self.pool.max_size);
        self.server.writes.load().resize(self.pool.max_size);
        self.server.dialer.store(Arc::clone(&self.dialer));
        let mut earlier = std::mem::take(&mut *before.earlier());
        let writes = before.write_pool.load_full();
        if Arc::ptr_eq(&self.read_pool, &before.read_pool) {
            self.write_pool.store(writes);
            *self.earlier() = earlier;
            return Vec::new();
        }
        if writes.is_some() {
            self.open_writes();
        }
        let read_pool = Retired { kind: SessionKind::Read, pool: Arc::clone(&before.read_pool) };
        let writes = writes.map(|pool| Retired { kind: SessionKind::Write, pool });
        let replaced: Vec<_> = [read_pool].into_iter().chain(writes).collect();
        earlier.extend(replaced.iter().cloned());
        *self.earlier() = earlier;
        replaced
    }

    /// Closes idle connections, and sends waiting callers to the new pools.
    pub(crate) fn retire(replaced: &[Retired]) {
        for retired in replaced {
            retired.pool.retire();
        }
    }

    /// Drains a removed node: only connections in use may finish.
    pub(crate) fn drain(&self) {
        self.read_pool.retire();
        if let Some(pool) = self.write_pool() {
            pool.retire();
        }
    }

    /// Returns `true` if both nodes share their connections.
    pub(crate) fn shares_sessions_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.read_pool, &other.read_pool)
    }

    pub(crate) fn id(&self) -> NodeId {
        self.server.id
    }

    pub(crate) fn name(&self) -> &str {
        self.config.name()
    }

    pub(crate) fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// Returns the newest settings of the server, even after a succession.
    pub(crate) fn dialer(&self) -> Arc<Dialer> {
        self.server.dialer.load_full()
    }

    pub(crate) fn stats(&self) -> &Arc<NodeStats> {
        &self.server.stats
    }

    pub(crate) fn read_times(&self) -> &P99Estimator {
        &self.server.read_times
    }

    pub(crate) fn read_pool(&self) -> &NodePool {
        &self.read_pool
    }

    pub(crate) fn write_pool(&self) -> Option<Arc<NodePool>> {
        self.write_pool.load_full()
    }

    /// Checks out an idle session of either pool, to probe the server through it.
    pub(crate) fn idle_session(&self) -> Option<Lease> {
        self.read_pool.try_idle().or_else(|| self.write_pool()?.try_idle())
    }

    /// Opens the node for writes, because it is the primary.
    pub(crate) fn open_writes(&self) {
        if self.write_pool.load().is_none() {
            let gate = Gate::clone(&self.server.writes.load());
            let (server, dialer) = (&self.server, &self.dialer);
            let pool = new_pool(server, dialer, SessionKind::Write, &self.pool, &self.backoff, gate);
            self.write_pool.store(Some(Arc::new(pool)));
        }
    }

    /// Fences the node: closes every connection that could write.
    ///
    /// No new one is opened.
    pub(crate) fn close_writes(&self) {
        let mut earlier = self.earlier();
        let pool = self.write_pool.swap(None);
        if let Some(pool) = &pool {
            pool.close();
        }
        for retired in earlier.extract_if(.., |retired| retired.kind == SessionKind::Write) {
            retired.pool.close();
        }
        if pool.is_some() {
            self.server.writes.store(Arc::new(Gate::new(self.pool.max_size)));
        }
    }

    /// Closes every connection at once.
    ///
    /// So no caller waits for a silent server.
    pub(crate) fn close_now(&self) {
        self.read_pool.close_now();
        if let Some(pool) = self.write_pool() {
            pool.close_now();
        }
        for retired in self.earlier().drain(..) {
            retired.pool.close();
        }
    }

    /// Closes every connection to the node for good.
    pub(crate) fn close(&self) {
        self.close_writes();
        self.close_now();
        self.read_pool.close();
    }

    /// Lets the pools log in again at once, because the server is healthy.
    pub(crate) fn on_up(&self) {
        self.read_pool.on_up();
        if let Some(pool) = self.write_pool() {
            pool.on_up();
        }
    }

    /// Returns the connections in use, including those with earlier settings.
    pub(crate) fn leased(&self) -> u32 {
        let mut earlier = self.earlier();
        // No other code checks whether they are still needed. An abandoned session may still be cancelled at the
        // server.
        earlier.retain(|retired| retired.pool.connections() > 0 || retired.pool.unfinished() > 0);
        let leased: u32 = earlier.iter().map(Retired::leased).sum();
        leased + self.read_pool.leased() + self.write_pool().map_or(0, |pool| pool.leased())
    }

    /// Returns the sessions in use, or abandoned and not yet ended.
    pub(crate) fn unfinished(&self) -> u32 {
        let earlier: u32 = self.earlier().iter().map(|retired| retired.pool.unfinished()).sum();
        earlier + self.read_pool.unfinished() + self.write_pool().map_or(0, |pool| pool.unfinished())
    }

    /// Returns all connections, in use or idle.
    ///
    /// Connections with earlier settings count as well.
    pub(crate) fn connections(&self) -> u32 {
        let earlier: u32 = self.earlier().iter().map(|retired| retired.pool.connections()).sum();
        earlier + self.read_pool.connections() + self.write_pool().map_or(0, |pool| pool.connections())
    }

    fn earlier(&self) -> MutexGuard<'_, Vec<Retired>> {
        // No code panics while it holds this lock.
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn new_pool(
    server: &Server,
    dialer: &Arc<Dialer>,
    kind: SessionKind,
    settings: &PoolSettings,
    backoff: &Backoff,
    gate: Gate,
) -> NodePool {
    let (stats, limits) = (Arc::clone(&server.stats), Arc::clone(&server.limits));
    NodePool::new(Arc::clone(dialer), kind, settings, backoff, stats, limits, gate)
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.name()).finish_non_exhaustive()
    }
}
