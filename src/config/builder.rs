//! Configuration by the program itself, without file or environment.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::draft::Draft;
use super::reader::Names;
use super::validate::{self, Findings};
use super::{
    Config, ConfigError, InitialRole, NodeConfig, PoolSettings, ProbeSettings, ReadSettings, TimeoutSettings,
    WriteSettings,
};
use crate::backoff::Backoff;

/// Builds a [`Config`] in code. It reads neither a file nor the environment.
///
/// Nothing is judged before [`build`](ConfigBuilder::build), which then names every fault.
///
/// ```
/// use pointsman::config::{Config, PoolSettings};
///
/// # fn main() -> Result<(), pointsman::config::ConfigError> {
/// let config = Config::builder()
///     .primary("postgres://app:hunter2@db-1/payments")
///     .replica("postgres://app:hunter2@db-2/payments")
///     .pool(PoolSettings { max_size: 20, ..PoolSettings::default() })
///     .build()?;
/// assert!(config.has_replicas());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ConfigBuilder {
    nodes: Vec<Source>,
    draft: Draft,
}

#[derive(Clone)]
enum Source {
    Url(InitialRole, SecretString),
    Node(Box<NodeConfig>),
}

impl ConfigBuilder {
    /// Adds the server that is assumed to be the primary at first.
    pub fn primary(self, url: impl Into<String>) -> Self {
        self.source(Source::Url(InitialRole::Primary, url.into().into()))
    }

    /// Adds a server that is assumed to be a replica at first.
    pub fn replica(self, url: impl Into<String>) -> Self {
        self.source(Source::Url(InitialRole::Replica, url.into().into()))
    }

    /// Adds a node with a zone, tags, a weight or a name of its own.
    pub fn node(self, node: NodeConfig) -> Self {
        self.source(Source::Node(Box::new(node)))
    }

    fn source(mut self, source: Source) -> Self {
        self.nodes.push(source);
        self
    }

    /// Says in which zone this program runs.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.draft.zone = Some(zone.into());
        self
    }

    /// Sets what `pg_stat_activity` shows as the name of this program.
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.draft.application_name = name.into();
        self
    }

    /// Sets up the connection pools.
    pub fn pool(mut self, pool: PoolSettings) -> Self {
        self.draft.pool = pool;
        self
    }

    /// Sets how long anything may take.
    pub fn timeouts(mut self, timeouts: TimeoutSettings) -> Self {
        self.draft.timeouts = timeouts;
        self
    }

    /// Sets how the monitors look at their nodes.
    pub fn probe(mut self, probe: ProbeSettings) -> Self {
        self.draft.probe = probe;
        self
    }

    /// Sets the schedule by which a node that is down is tried again.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.draft.backoff = backoff;
        self
    }

    /// Sets which nodes serve reads.
    pub fn reads(mut self, reads: ReadSettings) -> Self {
        self.draft.reads = reads;
        self
    }

    /// Sets how writes live through a failover and through conflicts.
    pub fn writes(mut self, writes: WriteSettings) -> Self {
        self.draft.writes = writes;
        self
    }

    /// Checks everything together.
    ///
    /// # Errors
    ///
    /// Every fault, named by the setting (`pool.max_size`) or the call (`replica()`).
    pub fn build(self) -> Result<Config, ConfigError> {
        let Self { nodes, mut draft } = self;
        let mut findings = Findings::default();
        let mut replicas = 0;
        for source in nodes {
            match source {
                Source::Node(node) => draft.nodes.push(("node()".to_owned(), *node)),
                Source::Url(guess, url) => {
                    let key = match guess {
                        InitialRole::Primary => "primary()".to_owned(),
                        InitialRole::Replica => {
                            replicas += 1;
                            format!("replica() number {replicas}")
                        }
                    };
                    match NodeConfig::parse(&key, url.expose_secret(), guess) {
                        Ok(node) => draft.nodes.push((key, node)),
                        Err(faults) => findings.node_faults(faults),
                    }
                }
            }
        }
        validate::finish(
            draft,
            &Names::default(),
            findings,
            ("primary()", "call it with the URL of the primary"),
        )
    }
}

/// Shows the nodes that are already parsed; a URL may hold a password.
impl fmt::Debug for ConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigBuilder").field("nodes", &self.nodes.len()).finish_non_exhaustive()
    }
}
