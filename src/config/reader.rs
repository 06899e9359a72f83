//! Reads the settings one by one, and collects the issues.
//!
//! The values come from the file and the environment.
//!
//! serde would stop at the first value that does not fit, and quote it. Here each setting reads its value by its
//! path. An invalid value is reported and replaced by its default, and a value that no setting has read is unknown.
//! Without any values, the reader checks those of the program.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

use config::{Map, Value, ValueKind};

use super::ConfigIssue;
use super::declare::{Declaration, Group};
use super::value::{Setting, describe};

/// The issues found so far.
#[derive(Clone, Default)]
pub(super) struct Diagnostics {
    pub(super) issues: Vec<ConfigIssue>,
    /// Paths of invalid values; a rule that depends on one is not checked.
    invalid_keys: BTreeSet<String>,
    /// `true` if a node is missing because it was invalid.
    pub(super) nodes_incomplete: bool,
    /// The key as the user wrote it, by path.
    keys: BTreeMap<String, String>,
    /// The table that contains all paths.
    prefix: String,
}

impl Diagnostics {
    /// Returns the key of `path` as the user wrote it, or `path` for a default.
    pub(super) fn key(&self, path: &str) -> String {
        self.keys.get(path).cloned().unwrap_or_else(|| format!("{}{path}", self.prefix))
    }

    /// Returns `true` if the user wrote a value for `path`.
    pub(super) fn is_written(&self, path: &str) -> bool {
        self.keys.contains_key(path)
    }

    /// Returns `true` if the values at all `paths` are the user's, or defaults.
    pub(super) fn all_valid(&self, paths: &[&str]) -> bool {
        paths.iter().all(|path| !self.invalid_keys.contains(*path))
    }

    /// Reports an invalid value of a setting.
    pub(super) fn report(&mut self, path: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        self.issues.push(ConfigIssue::new(self.key(path), problem, remedy));
        self.invalid_keys.insert(path.to_owned());
    }

    /// Reports a node that is left out because of these issues.
    pub(super) fn report_node(&mut self, issues: impl IntoIterator<Item = ConfigIssue>) {
        self.nodes_incomplete = true;
        self.issues.extend(issues);
    }

    /// Reports settings that contradict each other, under the first written key.
    pub(super) fn contradiction(&mut self, paths: &[&str], rule: &str) {
        if !self.all_valid(paths) {
            return;
        }
        let blamed = paths.iter().find(|path| self.is_written(path)).unwrap_or(&paths[0]);
        let others: Vec<_> = paths.iter().filter(|path| *path != blamed).map(|path| self.key(path)).collect();
        let problem = format!("contradicts {}", others.join(" and "));
        self.report(blamed, problem, format!("change one of them: {rule}"));
    }
}

/// A setting as the guide and the example file show it.
#[cfg_attr(not(test), expect(dead_code, reason = "for the guide, which a test writes"))]
pub(super) struct Documented {
    pub(super) path: String,
    pub(super) heading: &'static str,
    /// The lines of the setting's documentation.
    pub(super) doc: &'static [&'static str],
    /// The values that are accepted.
    pub(super) values: String,
    /// The default as it is written in TOML, or an example if there is none.
    pub(super) default: Result<String, &'static str>,
}

/// Reads settings. Not `Debug`: it holds passwords.
#[derive(Default)]
pub(super) struct Reader {
    /// The values that no setting has read yet.
    ///
    /// The origin of a variable's value is the name of the variable.
    values: BTreeMap<String, Value>,
    /// The declared settings, written or not.
    pub(super) known: Vec<Documented>,
    pub(super) diagnostics: Diagnostics,
}

impl Reader {
    /// Creates a reader of a table whose keys follow `prefix`.
    pub(super) fn new(prefix: &str, table: Map<String, Value>) -> Self {
        let mut reader = Self::default();
        reader.diagnostics.prefix = prefix.to_owned();
        reader.add_table("", table);
        reader
    }

    /// Adds the values of a table, except at paths that have one.
    pub(super) fn add_table(&mut self, parent: &str, table: Map<String, Value>) {
        for (key, value) in table {
            let path = join(parent, &key);
            match value.kind {
                ValueKind::Table(table) if !table.is_empty() => self.add_table(&path, table),
                _ => {
                    let prefix = &self.diagnostics.prefix;
                    let key = value.origin().map_or_else(|| format!("{prefix}{path}"), str::to_owned);
                    self.diagnostics.keys.entry(path.clone()).or_insert(key);
                    self.values.entry(path).or_insert(value);
                }
            }
        }
    }

    /// Reads a group of settings.
    pub(super) fn group<G: Group>(&mut self) -> G {
        let mut group = G::default();
        group.visit(self);
        group
    }

    /// Reads one setting, if it is present, and checks it.
    pub(super) fn setting<T: Setting>(
        &mut self,
        declared: &Declaration,
        value: &mut T,
        bounds: impl RangeBounds<T::Bound>,
    ) {
        let path = join(declared.table, declared.key);
        self.known.push(Documented {
            path: path.clone(),
            heading: declared.heading,
            doc: declared.doc,
            values: describe::<T>(&bounds),
            default: declared.example.map_or_else(|| Ok(value.show()), Err),
        });
        if let Some(written) = self.values.remove(&path) {
            match T::read(&written) {
                Some(read) => *value = read,
                None => return self.diagnostics.report(&path, format!("is not {}", T::WHAT), T::REMEDY),
            }
        }
        // A NaN is in no range.
        if value.bounded().is_some_and(|value| !bounds.contains(value)) {
            let values = describe::<T>(&bounds);
            let within = if values.contains(" to ") { "within " } else { "" };
            let remedy = "choose a value in that range, or remove the key for its default";
            self.diagnostics.report(&path, format!("is not {within}{values}"), remedy);
        }
    }

    /// Takes the value at `path` as it is written.
    pub(super) fn take(&mut self, path: &str) -> Option<Value> {
        self.values.remove(path)
    }

    /// Reports the values that no setting has read: their keys are unknown.
    pub(super) fn finish(mut self) -> Diagnostics {
        for (path, value) in std::mem::take(&mut self.values) {
            let env = value.origin().is_some();
            let group = format!("{path}.");
            let remedy = if path.starts_with("DATABASE_") {
                "did you mean `DATABASE_REPLICA_URL`? It takes several URLs, separated by commas, and \
                 `DATABASE_REPLICA_URL_FILE` the path of a file that holds them"
                    .to_owned()
            } else if !env && self.known.iter().any(|known| known.path.starts_with(&group)) {
                if matches!(value.kind, ValueKind::Table(_)) {
                    // A heading with all of its keys commented out.
                    continue;
                }
                format!("it is a table: write `[{path}]` and its keys below it")
            } else {
                self.suggestion(&path, env)
            };
            self.diagnostics.report(&path, "is not a known key", remedy);
        }
        self.diagnostics
    }

    /// Returns the remedy for an unknown key.
    fn suggestion(&self, path: &str, env: bool) -> String {
        let meant = path.strip_prefix(PREFIX).map_or_else(|| path.to_owned(), path_of);
        let known = self
            .known
            .iter()
            .map(|known| known.path.as_str())
            .chain(self.diagnostics.prefix.is_empty().then_some("nodes"));
        match super::nearest(&meant, known) {
            Some(near) if env => format!("did you mean `{}`?", env_name(near)),
            Some(near) => format!("did you mean `{}{near}`?", self.diagnostics.prefix),
            None => "remove it, or see docs/configuration.md for the keys that exist".to_owned(),
        }
    }
}

/// Prefix of the variables, except those of the servers.
pub(super) const PREFIX: &str = "POINTSMAN_";

/// Returns the environment variable for a path.
pub(super) fn env_name(path: &str) -> String {
    let prefix = if path.starts_with("database_") { "" } else { PREFIX };
    format!("{prefix}{}", path.replace('.', "__").to_ascii_uppercase())
}

/// Returns the path that a variable without its prefix stands for.
pub(super) fn path_of(name: &str) -> String {
    name.to_ascii_lowercase().replace("__", ".")
}

fn join(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}
