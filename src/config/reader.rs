//! Takes settings out of a merged configuration, one by one, and remembers what was wrong.
//!
//! serde would stop at the first value that doesn't fit, and quote it. Here every setting is asked
//! for by its path; a faulty one is recorded and replaced by its default, and what nobody asked
//! for is unknown. The list of all known keys is the list of what was asked for.

use std::collections::{BTreeMap, BTreeSet};

use config::{Value, ValueKind};

use super::ConfigIssue;
use super::value::{Raw, Setting};

/// The origin that the `config` crate gives to what comes from the environment.
const ENVIRONMENT: &str = "the environment";

/// The paths of all settings, and how each was written.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<String, String>);

impl Names {
    /// Whether the user wrote a value for `path`.
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// The key of `path` as the user wrote it, or the path if the value is a default.
    pub(super) fn of<'a>(&'a self, path: &'a str) -> &'a str {
        self.0.get(path).map_or(path, String::as_str)
    }
}

/// A key that exists, with its default as it would be written in TOML.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub(super) path: String,
    /// `None` for what has no default.
    pub(super) default: Option<String>,
}

/// Reads settings from a flat map of paths. Not `Debug`: it holds passwords.
#[derive(Default)]
pub(super) struct Reader {
    prefix: String,
    values: BTreeMap<String, Value>,
    pub(super) known: Vec<Known>,
    pub(super) names: Names,
    pub(super) faults: Vec<ConfigIssue>,
    /// The paths whose value was faulty: nothing that depends on them is worth a second fault.
    pub(super) poisoned: BTreeSet<String>,
}

impl Reader {
    /// Reads from a table whose keys are shown behind `prefix`.
    pub(super) fn new(prefix: &str, table: impl IntoIterator<Item = (String, Value)>) -> Self {
        let mut values = BTreeMap::new();
        flatten("", table, &mut values);
        let name = |(path, value): (&String, &Value)| {
            let environment = value.origin() == Some(ENVIRONMENT);
            (path.clone(), if environment { env_name(path) } else { format!("{prefix}{path}") })
        };
        let names = Names(values.iter().map(name).collect());
        Self { prefix: prefix.to_owned(), values, names, ..Self::default() }
    }

    /// Takes the value at `path`, or its default.
    pub(super) fn take<T: Setting>(&mut self, path: &str, default: T) -> T {
        self.known.push(Known { path: path.to_owned(), default: default.show() });
        let Some(value) = self.values.remove(path) else { return default };
        let environment = value.origin() == Some(ENVIRONMENT);
        match T::read(Raw::new(&value.kind, environment)) {
            Some(value) => value,
            None => {
                self.fault(path, format!("is not {}", T::WHAT), T::REMEDY);
                default
            }
        }
    }

    /// Takes the value at `path` as it is.
    pub(super) fn take_raw(&mut self, path: &str) -> Option<Value> {
        self.known.push(Known { path: path.to_owned(), default: None });
        self.values.remove(path)
    }

    /// Records that the value at `path` is faulty.
    pub(super) fn fault(&mut self, path: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        let key = self.name(path);
        self.faults.push(ConfigIssue::new(key, problem, remedy));
        self.poisoned.insert(path.to_owned());
    }

    /// The paths of all values that were not taken yet and stand for themselves.
    pub(super) fn leaves(&self) -> impl Iterator<Item = &String> {
        self.values.iter().filter(|(_, value)| !is_table(value)).map(|(path, _)| path)
    }

    /// The key of `path` as the user wrote it.
    pub(super) fn name(&self, path: &str) -> String {
        let shown = self.names.of(path);
        if shown == path { format!("{}{path}", self.prefix) } else { shown.to_owned() }
    }

    /// Reports what is left: nobody asked for it, so it is unknown.
    pub(super) fn finish(&mut self) {
        for (path, value) in std::mem::take(&mut self.values) {
            let problem = "is not a known key";
            let group = format!("{path}.");
            let remedy = if self.known.iter().any(|known| known.path.starts_with(&group)) {
                if is_table(&value) {
                    // A heading with all of its keys commented out.
                    continue;
                }
                format!("it is a table: write `[{path}]` and its keys below it")
            } else {
                suggestion(&path, &self.known, |near| format!("{}{near}", self.prefix))
            };
            let key = self.name(&path);
            self.faults.push(ConfigIssue::new(key, problem, remedy));
        }
    }
}

/// The remedy for an unknown path.
pub(super) fn suggestion(path: &str, known: &[Known], spell: impl Fn(&str) -> String) -> String {
    match super::nearest(path, known.iter().map(|known| known.path.as_str())) {
        Some(near) => format!("did you mean `{}`?", spell(near)),
        None => "remove it, or see docs/configuration.md for the keys that exist".to_owned(),
    }
}

/// The environment variable for a path.
pub(super) fn env_name(path: &str) -> String {
    match path {
        path if path.starts_with("database_") => path.to_ascii_uppercase(),
        _ => format!("POINTSMAN_{}", path.replace('.', "__").to_ascii_uppercase()),
    }
}

/// Whether it is a table, which is then an empty one: others were flattened.
fn is_table(value: &Value) -> bool {
    matches!(value.kind, ValueKind::Table(_))
}

fn flatten(
    parent: &str,
    table: impl IntoIterator<Item = (String, Value)>,
    into: &mut BTreeMap<String, Value>,
) {
    for (key, value) in table {
        let path = if parent.is_empty() { key } else { format!("{parent}.{key}") };
        match value.kind {
            ValueKind::Table(table) if !table.is_empty() => flatten(&path, table, into),
            _ => {
                into.insert(path, value);
            }
        }
    }
}
