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
//! Modules: `valid` checks everything together, which makes a [`Config`]. `settings` declares every setting in the form of
//! `declare`, `value` has their types, and `reader` reads and checks them. `sources` reads file and environment, which the
//! library `config` parses and merges, and `file` reads the files that they name. `nodes` has the nodes, `node` one of
//! them, and `url` parses its URL.

mod builder;
mod declare;
#[cfg(test)]
mod documentation;
pub(crate) mod error;
mod file;
#[cfg(feature = "testkit")]
pub(crate) mod network;
mod node;
mod nodes;
mod reader;
mod settings;
mod sources;
#[cfg(test)]
mod tests;
mod tls;
mod url;
pub(crate) mod valid;
mod value;

pub use builder::ConfigBuilder;
pub(crate) use error::ConfigError;
pub use error::ConfigIssue;
pub use node::{InitialRole, NodeConfig, Password};
#[cfg(test)]
pub(crate) use settings::smallest_max_lag;
pub use settings::{Fallback, PoolSettings, ProbeSettings, ReadSettings, TimeoutSettings, WriteSettings};
pub use tls::{TlsMode, TlsSettings};
pub(crate) use valid::Config;

use self::valid::UncheckedConfig;
pub use crate::backoff::{Backoff, BackoffError};

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
