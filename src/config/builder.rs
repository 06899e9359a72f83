//! A configuration built in code, without file or environment.

use std::fmt;
use std::path::PathBuf;

use super::declare::Group;
use super::reader::{Diagnostics, Reader};
use super::{
    Config, ConfigError, InitialRole, NodeConfig, PoolSettings, ProbeSettings, ReadSettings, TimeoutSettings,
    UncheckedConfig, WriteSettings, nodes,
};
use crate::backoff::Backoff;
use crate::token::TokenKey;

/// Builds a [`Config`] in code, with neither a file nor the environment.
///
/// [`build`](ConfigBuilder::build) checks everything, and reports every issue.
///
/// ```
/// use pointsman::Config;
/// use pointsman::config::PoolSettings;
///
/// # fn main() -> Result<(), pointsman::ConfigError> {
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
    config: UncheckedConfig,
    diagnostics: Diagnostics,
    replicas: u32,
}

impl ConfigBuilder {
    /// Adds the server that should be the primary at the start.
    pub fn primary(mut self, url: impl Into<String>) -> Self {
        let url = (String::from("primary()"), url.into());
        nodes::add(&mut self.config.nodes, url, InitialRole::Primary, &mut self.diagnostics);
        self
    }

    /// Adds a server that should be a replica at the start.
    pub fn replica(mut self, url: impl Into<String>) -> Self {
        self.replicas += 1;
        let url = (format!("replica() number {}", self.replicas), url.into());
        nodes::add(&mut self.config.nodes, url, InitialRole::Replica, &mut self.diagnostics);
        self
    }

    /// Adds a node with a name, a zone, tags or a weight.
    pub fn node(mut self, node: NodeConfig) -> Self {
        self.config.nodes.push(("node()".to_owned(), node));
        self
    }

    /// Sets the zone that this program runs in.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.config.settings.program.zone = Some(zone.into());
        self
    }

    /// Sets the name of this program in `pg_stat_activity`.
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.config.settings.program.application_name = name.into();
        self
    }

    /// Sets the connection pools.
    pub fn pool(mut self, pool: PoolSettings) -> Self {
        self.config.settings.pool = pool;
        self
    }

    /// Sets the time limits of connecting, waiting and closing.
    pub fn timeouts(mut self, timeouts: TimeoutSettings) -> Self {
        self.config.settings.timeouts = timeouts;
        self
    }

    /// Sets the probes by which the monitors watch their nodes.
    pub fn probe(mut self, probe: ProbeSettings) -> Self {
        self.config.settings.probe = probe;
        self
    }

    /// Sets the file that keeps what the set knows across restarts.
    ///
    /// The folder must exist, and the program must be the only one that writes the file.
    ///
    /// ```
    /// use pointsman::Config;
    ///
    /// # fn main() -> Result<(), pointsman::ConfigError> {
    /// let file = "/var/lib/payments/pointsman.memory";
    /// let config = Config::builder().primary("postgres://db/payments").memory_file(file).build()?;
    /// assert_eq!(config.memory_file(), Some(file.as_ref()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn memory_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.settings.topology.memory_file = Some(path.into());
        self
    }

    /// Sets the schedule of reconnections to a node that is down.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.config.settings.backoff = backoff;
        self
    }

    /// Sets which nodes serve reads.
    pub fn reads(mut self, reads: ReadSettings) -> Self {
        self.config.settings.reads = reads;
        self
    }

    /// Sets how writes outlive a failover and conflicts.
    pub fn writes(mut self, writes: WriteSettings) -> Self {
        self.config.settings.writes = writes;
        self
    }

    /// Sets the key that signs causal tokens.
    pub fn token_key(mut self, key: TokenKey) -> Self {
        self.config.settings.causal.token_key = Some(key);
        self
    }

    /// Checks everything together.
    ///
    /// # Errors
    ///
    /// Returns every issue, under its setting (`pool.max_size`) or call (`replica()`).
    pub fn build(self) -> Result<Config, ConfigError> {
        let Self { mut config, diagnostics, .. } = self;
        let mut reader = Reader::default();
        reader.diagnostics = diagnostics;
        // Without a file and variables, this only checks the ranges.
        config.settings.visit(&mut reader);
        config.check(reader.finish(), ("primary()", "call it with the URL of the primary"))
    }
}

/// Shows the number of nodes, because a URL may hold a password.
impl fmt::Debug for ConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigBuilder").field("nodes", &self.config.nodes.len()).finish_non_exhaustive()
    }
}
