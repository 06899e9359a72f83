//! Configuration by the program itself, without file or environment.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::declare::Group;
use super::reader::Reader;
use super::settings::Settings;
use super::{
    Config, ConfigError, InitialRole, NodeConfig, PoolSettings, ProbeSettings, ReadSettings, TimeoutSettings,
    UncheckedConfig, WriteSettings,
};
use crate::backoff::Backoff;

/// Builds a [`Config`] in code, with neither a file nor the environment.
///
/// [`build`](ConfigBuilder::build) checks everything, and names every issue.
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
    settings: Settings,
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

    /// Adds a node with a name, a zone, tags or a weight.
    pub fn node(self, node: NodeConfig) -> Self {
        self.source(Source::Node(Box::new(node)))
    }

    fn source(mut self, source: Source) -> Self {
        self.nodes.push(source);
        self
    }

    /// Sets the zone that this program runs in.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.settings.program.zone = Some(zone.into());
        self
    }

    /// Sets the name of this program in `pg_stat_activity`.
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.settings.program.application_name = name.into();
        self
    }

    /// Sets the connection pools.
    pub fn pool(mut self, pool: PoolSettings) -> Self {
        self.settings.pool = pool;
        self
    }

    /// Sets the time limits of connecting, waiting and closing.
    pub fn timeouts(mut self, timeouts: TimeoutSettings) -> Self {
        self.settings.timeouts = timeouts;
        self
    }

    /// Sets the probes by which the monitors watch their nodes.
    pub fn probe(mut self, probe: ProbeSettings) -> Self {
        self.settings.probe = probe;
        self
    }

    /// Sets the schedule by which a node that is down is tried again.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// Sets which nodes serve reads.
    pub fn reads(mut self, reads: ReadSettings) -> Self {
        self.settings.reads = reads;
        self
    }

    /// Sets how writes outlive a failover and conflicts.
    pub fn writes(mut self, writes: WriteSettings) -> Self {
        self.settings.writes = writes;
        self
    }

    /// Checks everything together.
    ///
    /// # Errors
    ///
    /// Every issue, named by the setting (`pool.max_size`) or the call (`replica()`).
    pub fn build(self) -> Result<Config, ConfigError> {
        let mut config = UncheckedConfig { nodes: Vec::new(), settings: self.settings };
        let mut reader = Reader::default();
        let mut replicas = 0;
        for source in self.nodes {
            let (key, node) = match source {
                Source::Node(node) => ("node()".to_owned(), Ok(*node)),
                Source::Url(role, url) => {
                    replicas += u32::from(role == InitialRole::Replica);
                    let key = match role {
                        InitialRole::Primary => "primary()".to_owned(),
                        InitialRole::Replica => format!("replica() number {replicas}"),
                    };
                    let node = NodeConfig::parse(&key, url.expose_secret(), role);
                    (key, node)
                }
            };
            match node {
                Ok(node) => config.nodes.push((key, node)),
                Err(issues) => reader.diagnostics.report_node(issues),
            }
        }
        // Without a file and variables, this only checks the ranges.
        config.settings.visit(&mut reader);
        config.check(reader.finish(), ("primary()", "call it with the URL of the primary"))
    }
}

/// Shows the number of nodes, because a URL may hold a password.
impl fmt::Debug for ConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigBuilder").field("nodes", &self.nodes.len()).finish_non_exhaustive()
    }
}
