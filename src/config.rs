//! Configuration of a replica set: its nodes and its settings.
//!
//! Two variables are enough: `DATABASE_URL` for the primary, and `DATABASE_REPLICA_URL` for the replicas, separated
//! by commas. Rotated secrets belong in files: `DATABASE_PASSWORD_FILE`. Every other setting has a default with a
//! reason, and can be set
//!
//! - in a TOML file (`pointsman.toml`, or the one that `POINTSMAN_CONFIG` names), and over it
//! - in the environment, as `POINTSMAN_<TABLE>__<KEY>`: `POINTSMAN_POOL__MAX_SIZE=20`.
//!
//! `docs/configuration.md` lists every key. An empty variable counts as one that is not set.
//!
//! A [`Config`] is always valid. An invalid configuration is rejected as a whole, with every issue reported at
//! once. An unknown key is an issue, because a setting with a misspelt name would have no effect. No error and no
//! `Debug` ever shows a password. Errors show no value at all, because any value may be a password under the wrong
//! key.
//!
//! Modules: `settings` declares every setting in the form of `declare`, `value` has their types, and `reader` reads
//! and checks them. `sources` reads file and environment, and `file` reads the files that they name. `nodes` has
//! the nodes, `node` one of them, and `url` parses its URL.

mod builder;
mod declare;
#[cfg(test)]
mod documentation;
mod error;
mod file;
mod node;
mod nodes;
mod reader;
mod settings;
mod sources;
#[cfg(test)]
mod tests;
mod tls;
mod url;
mod value;

use std::fmt;
use std::path::Path;

pub use builder::ConfigBuilder;
pub use error::{ConfigError, ConfigIssue};
pub use node::{InitialRole, NodeConfig, Password};
#[cfg(test)]
pub(crate) use settings::smallest_max_lag;
pub use settings::{Fallback, PoolSettings, ProbeSettings, ReadSettings, TimeoutSettings, WriteSettings};
pub use tls::{TlsMode, TlsSettings};

use self::reader::Diagnostics;
use self::settings::Settings;
use crate::backoff::Backoff;

/// A valid configuration of a replica set.
///
/// `Display` is one line for the log. Neither it nor `Debug` shows a password.
///
/// ```
/// use pointsman::config::Config;
///
/// # fn main() -> Result<(), pointsman::config::ConfigError> {
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
    /// use pointsman::config::Config;
    ///
    /// # fn main() -> Result<(), pointsman::config::ConfigError> {
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

    /// Returns the same configuration with only this node.
    #[cfg(feature = "testkit")]
    pub(crate) fn with_only(&self, node: NodeConfig) -> Self {
        Self { nodes: vec![node], ..self.clone() }
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
struct UncheckedConfig {
    /// Each node with the key that it comes from.
    nodes: nodes::Nodes,
    settings: Settings,
}

impl UncheckedConfig {
    /// Checks the whole configuration.
    ///
    /// `no_primary` is the key and the remedy of a missing primary.
    fn check(self, mut diagnostics: Diagnostics, no_primary: (&str, &str)) -> Result<Config, ConfigError> {
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

/// Returns the known word that the user probably meant by `word`.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |near: &str| {
        let whole = strsim::normalized_damerau_levenshtein(word, near);
        // The right key in the wrong table is similar, too; the table breaks a tie.
        let part = strsim::normalized_damerau_levenshtein(&last(word), &last(near));
        whole.max(0.9 * part + 0.1 * whole - 0.1)
    };
    known
        .map(|near| (likeness(near), near))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, near)| near)
}
