//! The groups of settings: plain values, checked when a configuration is built from them.

use std::time::Duration;

use super::defaults;
use crate::backoff::Backoff;

/// The connection pools. There is one per node and intent.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSettings {
    /// How many connections one pool holds at most.
    pub max_size: u32,
    /// How long a connection may stay unused before it is closed.
    pub idle_timeout: Duration,
    /// How old a connection may become before it is replaced.
    pub max_lifetime: Duration,
    /// The proportion of `max_lifetime` that is left to chance, so that connections which were
    /// opened together don't end together.
    pub lifetime_jitter: f64,
    /// How many connections to one node may be in the making at once.
    pub max_concurrent_connects: u32,
    /// Whether a session on which something was set (`search_path`, an advisory lock, a temporary table) is reset
    /// before its next user gets it.
    pub reset_sessions: bool,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            max_size: defaults::POOL_MAX_SIZE,
            idle_timeout: defaults::POOL_IDLE_TIMEOUT,
            max_lifetime: defaults::POOL_MAX_LIFETIME,
            lifetime_jitter: defaults::POOL_LIFETIME_JITTER,
            max_concurrent_connects: defaults::POOL_MAX_CONCURRENT_CONNECTS,
            reset_sessions: defaults::POOL_RESET_SESSIONS,
        }
    }
}

/// How long anything may take.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeoutSettings {
    /// The whole of connecting to one node: TCP, TLS and authentication.
    pub connect: Duration,
    /// The deadline of `read()` and `write()`, over all nodes that they try.
    pub checkout: Duration,
    /// `statement_timeout` of read sessions; `None` leaves it to the server.
    pub read_statement: Option<Duration>,
    /// `statement_timeout` of write sessions; `None` leaves it to the server.
    pub write_statement: Option<Duration>,
    /// How long closing waits for connections that are in use.
    pub shutdown: Duration,
    /// How long a connection is silent before the first keepalive is sent. In whole seconds.
    pub tcp_keepalive_idle: Duration,
    /// The time between two keepalives. In whole seconds.
    pub tcp_keepalive_interval: Duration,
    /// How many keepalives without an answer end a connection.
    pub tcp_keepalive_retries: u32,
    /// How long sent data may stay unacknowledged before the connection is ended.
    pub tcp_user_timeout: Duration,
}

impl Default for TimeoutSettings {
    fn default() -> Self {
        Self {
            connect: defaults::TIMEOUT_CONNECT,
            checkout: defaults::TIMEOUT_CHECKOUT,
            read_statement: defaults::TIMEOUT_READ_STATEMENT,
            write_statement: defaults::TIMEOUT_WRITE_STATEMENT,
            shutdown: defaults::TIMEOUT_SHUTDOWN,
            tcp_keepalive_idle: defaults::TIMEOUT_TCP_KEEPALIVE_IDLE,
            tcp_keepalive_interval: defaults::TIMEOUT_TCP_KEEPALIVE_INTERVAL,
            tcp_keepalive_retries: defaults::TIMEOUT_TCP_KEEPALIVE_RETRIES,
            tcp_user_timeout: defaults::TIMEOUT_TCP_USER,
        }
    }
}

/// How the monitors look at their nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeSettings {
    /// The time between two probes of a node that is well.
    pub interval: Duration,
    /// How long a probe may take before it counts as missed; two missed in a row are a lost node.
    pub timeout: Duration,
    /// The time between two probes at the beginning of a search for a primary. It grows with the search.
    pub failover_interval: Duration,
}

impl Default for ProbeSettings {
    fn default() -> Self {
        Self {
            interval: defaults::PROBE_INTERVAL,
            timeout: defaults::PROBE_TIMEOUT,
            failover_interval: defaults::PROBE_FAILOVER_INTERVAL,
        }
    }
}

/// Whether the primary serves reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fallback {
    /// Never: without a fit replica, a read fails. Spelled `never`.
    ///
    /// A set that was configured without replicas serves its reads from the primary all the same.
    Never,
    /// Only while no replica is fit. Spelled `when_unfit`.
    WhenUnfit,
    /// Always: the primary is a candidate like any replica. Spelled `always`.
    Always,
}

impl Fallback {
    /// The spelling in configuration files and in the environment.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::WhenUnfit => "when_unfit",
            Self::Always => "always",
        }
    }
}

/// Which nodes serve reads, and what happens to a read that is slow.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadSettings {
    /// Whether the primary serves reads.
    pub fallback: Fallback,
    /// How many reads the primary serves at once in place of replicas.
    pub max_fallback: u32,
    /// How far behind in time a replica may be.
    pub max_lag: Duration,
    /// How far behind in bytes of WAL a replica may be; `None` sets no limit.
    pub max_lag_bytes: Option<u64>,
    /// How often `run_read` repeats a read that its node failed; 0 turns that off.
    pub retries: u32,
    /// The proportion of reads that may be sent to a second node as well; 0 turns hedging off.
    pub hedge_budget: f64,
    /// The shortest wait before a read is sent to a second node.
    pub hedge_min_delay: Duration,
    /// Whether nodes in the zone of this program are preferred.
    pub prefer_zone: bool,
    /// How long a node is left out when it fails for the first time.
    pub base_ejection_time: Duration,
    /// How long a node is left out at most, however often it failed.
    pub max_ejection_time: Duration,
    /// How long a node that came back takes to get its full share; zero gives it at once.
    pub slow_start: Duration,
}

impl Default for ReadSettings {
    fn default() -> Self {
        Self {
            fallback: defaults::READS_FALLBACK,
            max_fallback: defaults::READS_MAX_FALLBACK,
            max_lag: defaults::READS_MAX_LAG,
            max_lag_bytes: defaults::READS_MAX_LAG_BYTES,
            retries: defaults::READS_RETRIES,
            hedge_budget: defaults::READS_HEDGE_BUDGET,
            hedge_min_delay: defaults::READS_HEDGE_MIN_DELAY,
            prefer_zone: defaults::READS_PREFER_ZONE,
            base_ejection_time: defaults::READS_BASE_EJECTION_TIME,
            max_ejection_time: defaults::READS_MAX_EJECTION_TIME,
            slow_start: defaults::READS_SLOW_START,
        }
    }
}

/// How writes live through a failover and through conflicts.
#[derive(Clone, Debug, PartialEq)]
pub struct WriteSettings {
    /// How long `write()` waits for a primary while there is none; zero fails at once.
    pub failover_wait: Duration,
    /// How many callers of `write()` may wait for a primary at once.
    pub max_waiters: u32,
    /// How often `run_write` repeats a transaction that conflicted.
    pub retries: u32,
    /// How long `run_write` waits before it repeats a transaction. `retries` limits the attempts.
    pub retry_backoff: Backoff,
}

impl Default for WriteSettings {
    fn default() -> Self {
        Self {
            failover_wait: defaults::WRITES_FAILOVER_WAIT,
            max_waiters: defaults::WRITES_MAX_WAITERS,
            retries: defaults::WRITES_RETRIES,
            retry_backoff: defaults::retry_backoff(),
        }
    }
}
