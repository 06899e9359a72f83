//! The valid configuration, and the check that makes one.

use std::fmt;
use std::path::Path;
#[cfg(feature = "testkit")]
use std::sync::Arc;

#[cfg(feature = "testkit")]
use super::network::Network;
use super::reader::Diagnostics;
use super::settings::Settings;
use super::{
    ConfigBuilder, ConfigError, InitialRole, NodeConfig, PoolSettings, ProbeSettings, ReadSettings,
    TimeoutSettings, WriteSettings, nodes, sources,
};
use crate::backoff::Backoff;
use crate::token::TokenKey;

/// A valid configuration of a replica set.
///
/// `Display` is one line for the log. Neither it nor `Debug` shows a password.
///
/// ```
/// use pointsman::Config;
///
/// # fn main() -> Result<(), pointsman::ConfigError> {
/// let config = Config::builder().primary("postgres://app:hunter2@db/payments").build()?;
/// assert_eq!(config.nodes().len(), 1);
/// assert!(!config.has_replicas());
/// assert!(!format!("{config} {config:?}").contains("hunter2"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    nodes: Vec<NodeConfig>,
    settings: Settings,
}

impl Config {
    /// Loads from the environment, and from a file if there is one.
    ///
    /// The file is the one in `POINTSMAN_CONFIG`, or else `pointsman.toml` in the current directory, which may be
    /// missing. The environment overrides the file.
    ///
    /// # Errors
    ///
    /// Returns every issue, with the key as it was written.
    pub fn from_env() -> Result<Self, ConfigError> {
        sources::load(None)
    }

    /// Loads from the file at `path`, which must exist, and the environment.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), pointsman::ConfigError> {
    /// let config = pointsman::Config::from_file("/etc/pointsman.toml")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns every issue, with the key as it was written. A missing file is one.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        sources::load(Some(path.as_ref()))
    }

    /// Reads the text of a file and the given environment only.
    ///
    /// Secrets and certificates are still read from the files that they name.
    ///
    /// ```
    /// use pointsman::Config;
    ///
    /// # fn main() -> Result<(), pointsman::ConfigError> {
    /// let file = "[pool]\nmax_size = 5\nmax_concurrent_connects = 2";
    /// let env = [("DATABASE_URL", "postgres://db/app"), ("POINTSMAN_POOL__MAX_SIZE", "20")];
    /// let config = Config::from_sources(Some(file), env.map(|(k, v)| (k.into(), v.into())))?;
    /// assert_eq!(config.pool().max_size, 20, "the environment wins");
    /// assert_eq!(config.pool().max_concurrent_connects, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns every issue, with the key as it was written.
    pub fn from_sources(
        file: Option<&str>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        sources::read(file.map(|text| (sources::FILE, text)), env, Vec::new())
    }

    /// Starts a configuration in code, which reads neither file nor environment.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// Returns all nodes, at least one, in the order of the configuration.
    #[must_use]
    pub fn nodes(&self) -> &[NodeConfig] {
        &self.nodes
    }

    /// Returns the same configuration with only this node, and without a memory file.
    #[cfg(feature = "testkit")]
    pub(crate) fn with_only(&self, node: NodeConfig) -> Self {
        let mut only = Self { nodes: vec![node], ..self.clone() };
        only.settings.topology.memory_file = None;
        only
    }

    /// Returns the same configuration with a network in memory instead of sockets.
    #[cfg(feature = "testkit")]
    pub(crate) fn over(self, network: &Arc<dyn Network>) -> Self {
        let nodes = self.nodes.into_iter().map(|node| node.over(network)).collect();
        Self { nodes, ..self }
    }

    /// Returns the zone that this program runs in.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.settings.program.zone.as_deref()
    }

    /// Returns the name of this program in `pg_stat_activity`.
    #[must_use]
    pub fn application_name(&self) -> &str {
        &self.settings.program.application_name
    }

    /// Returns the settings of the connection pools.
    #[must_use]
    pub fn pool(&self) -> &PoolSettings {
        &self.settings.pool
    }

    /// Returns the time limits of connecting, waiting and closing.
    #[must_use]
    pub fn timeouts(&self) -> &TimeoutSettings {
        &self.settings.timeouts
    }

    /// Returns the settings of the probes.
    #[must_use]
    pub fn probe(&self) -> &ProbeSettings {
        &self.settings.probe
    }

    /// Returns the path of the memory file, if there is one.
    #[must_use]
    pub fn memory_file(&self) -> Option<&Path> {
        self.settings.topology.memory_file.as_deref()
    }

    /// Returns the schedule of reconnections to a node that is down.
    #[must_use]
    pub fn backoff(&self) -> &Backoff {
        &self.settings.backoff
    }

    /// Returns the settings of reads.
    #[must_use]
    pub fn reads(&self) -> &ReadSettings {
        &self.settings.reads
    }

    /// Returns the settings of writes.
    #[must_use]
    pub fn writes(&self) -> &WriteSettings {
        &self.settings.writes
    }

    /// Returns the key that signs causal tokens, if there is one.
    #[must_use]
    pub fn token_key(&self) -> Option<&TokenKey> {
        self.settings.causal.token_key.as_ref()
    }

    /// Returns `true` if there are nodes besides the primary.
    #[must_use]
    pub fn has_replicas(&self) -> bool {
        self.nodes.iter().any(|node| node.initial_role() == InitialRole::Replica)
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, node) in self.nodes.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(
                f,
                "{separator}{} {node} (tls {})",
                node.initial_role().as_str(),
                node.tls().mode.as_str()
            )?;
        }
        write!(f, "; {} connections per pool", self.settings.pool.max_size)
    }
}

/// A configuration of typed values that are not yet checked together.
#[derive(Clone, Default)]
pub(super) struct UncheckedConfig {
    /// Each node with the key that it comes from.
    pub(super) nodes: nodes::Nodes,
    pub(super) settings: Settings,
}

impl UncheckedConfig {
    /// Checks the whole configuration.
    ///
    /// `no_primary` is the key and the remedy of a missing primary.
    pub(super) fn check(
        self,
        mut diagnostics: Diagnostics,
        no_primary: (&str, &str),
    ) -> Result<Config, ConfigError> {
        let Self { nodes, settings } = self;
        settings.check(&mut diagnostics);
        nodes::check(&nodes, no_primary, &mut diagnostics);
        if !diagnostics.issues.is_empty() {
            return Err(ConfigError::new(diagnostics.issues));
        }
        let complete = |(_, node): (_, NodeConfig)| {
            node.completed(&settings.program.application_name, &settings.timeouts)
        };
        Ok(Config { nodes: nodes.into_iter().map(complete).collect(), settings })
    }
}
