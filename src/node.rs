//! One server: its settings, its pools and its vital signs.
//!
//! * `latency`: how long its answers take
//! * `read_times`: how long whole reads take, as a percentile
//! * `seen`: the server behind its address, as its monitor saw it last
//! * `vitals`: what its connections notice, between two looks of its monitor

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use self::read_times::ReadTimes;
pub(crate) use self::seen::SeenServer;
pub(crate) use self::vitals::Vitals;
use crate::backoff::Backoff;
use crate::config::{Config, NodeConfig, PoolSettings};
use crate::error::ConnectError;
use crate::link::{Dialer, Purpose};
use crate::pool::{Limits, NodePool};

mod latency;
mod read_times;
mod seen;
mod vitals;

/// Which server a node is: the same for as long as its host, port and database are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct NodeId(u64);

impl NodeId {
    /// Makes an id that no other node of this process has.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// One server of the set.
pub(crate) struct Node {
    id: NodeId,
    config: NodeConfig,
    dialer: Arc<Dialer>,
    vitals: Arc<Vitals>,
    settings: PoolSettings,
    /// Waits between logins that fail.
    backoff: Backoff,
    limits: Arc<Limits>,
    read_times: ReadTimes,
    read_pool: NodePool,
    /// There only while the node is the primary.
    write_pool: ArcSwapOption<NodePool>,
}

impl Node {
    /// Prepares a node; nothing is connected yet.
    ///
    /// # Errors
    ///
    /// A certificate file that cannot be used.
    pub(crate) fn new(node: &NodeConfig, config: &Config) -> Result<Self, ConnectError> {
        let dialer = Arc::new(Dialer::new(node.clone(), config.timeouts().clone(), config.probe().timeout)?);
        let vitals = Arc::new(Vitals::default());
        let limits = Arc::new(Limits::new(config.pool()));
        let read_pool = NodePool::new(
            Arc::clone(&dialer),
            Purpose::Read,
            config.pool(),
            config.backoff(),
            Arc::clone(&vitals),
            Arc::clone(&limits),
        );
        Ok(Self {
            id: NodeId::next(),
            config: node.clone(),
            dialer,
            vitals,
            settings: config.pool().clone(),
            backoff: config.backoff().clone(),
            limits,
            read_times: ReadTimes::default(),
            read_pool,
            write_pool: ArcSwapOption::empty(),
        })
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    pub(crate) fn name(&self) -> &str {
        self.config.name()
    }

    pub(crate) fn config(&self) -> &NodeConfig {
        &self.config
    }

    pub(crate) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    pub(crate) fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }

    pub(crate) fn read_times(&self) -> &ReadTimes {
        &self.read_times
    }

    pub(crate) fn read_pool(&self) -> &NodePool {
        &self.read_pool
    }

    pub(crate) fn write_pool(&self) -> Option<Arc<NodePool>> {
        self.write_pool.load_full()
    }

    /// Lets the node take writes: it is the primary.
    pub(crate) fn open_writes(&self) {
        if self.write_pool.load().is_none() {
            self.write_pool.store(Some(Arc::new(NodePool::new(
                Arc::clone(&self.dialer),
                Purpose::Write,
                &self.settings,
                &self.backoff,
                Arc::clone(&self.vitals),
                Arc::clone(&self.limits),
            ))));
        }
    }

    /// Fences the node: every connection that could write to it ends at once, and none is made.
    pub(crate) fn close_writes(&self) {
        if let Some(pool) = self.write_pool.swap(None) {
            pool.close();
        }
    }

    /// Ends every connection to the node at once, so that nobody waits for a server that does not answer.
    pub(crate) fn sever(&self) {
        self.read_pool.sever();
        if let Some(pool) = self.write_pool() {
            pool.sever();
        }
    }

    /// The node is well again, so what it refused before is no reason to keep from connecting.
    pub(crate) fn on_well(&self) {
        self.read_pool.on_well();
        if let Some(pool) = self.write_pool() {
            pool.on_well();
        }
    }

    /// Ends every connection to the node for good.
    pub(crate) fn close(&self) {
        self.close_writes();
        self.read_pool.close();
    }

    /// How many sessions are handed out, or were given up and have not ended.
    pub(crate) fn unfinished(&self) -> u32 {
        self.read_pool.unfinished() + self.write_pool().map_or(0, |pool| pool.unfinished())
    }

    /// How many connections are handed out.
    pub(crate) fn leased(&self) -> u32 {
        self.read_pool.leased() + self.write_pool().map_or(0, |pool| pool.leased())
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.name()).finish_non_exhaustive()
    }
}
