//! The sources of a configuration: a file, and the environment over it.

use std::io::ErrorKind;
use std::path::Path;

use config::{File, FileFormat, Map, Source, Value};

use super::reader::{self, Diagnostics, PREFIX, Reader};
use super::settings::Settings;
use super::{Config, ConfigError, ConfigIssue, UncheckedConfig, file, nodes};

/// The file that is read if it exists.
pub(super) const FILE: &str = "pointsman.toml";
/// The variable that names another file.
const FILE_VARIABLE: &str = "POINTSMAN_CONFIG";
/// Prefix of the test kit's variables.
///
/// The test kit runs in one process with the code under test.
const TESTKIT_PREFIX: &str = "POINTSMAN_TESTKIT_";

const NO_PRIMARY_REMEDY: &str = "set it as DATABASE_URL=postgres://user:password@host/database, name a file that holds \
                           it by DATABASE_URL_FILE, or give one of the `[[nodes]]` in the file `role = \"primary\"`";

/// Loads from `file`, the environment's file, or an existing `pointsman.toml`.
pub(super) fn load(file: Option<&Path>) -> Result<Config, ConfigError> {
    let mut env = Vec::new();
    let mut issues = Vec::new();
    for (name, value) in std::env::vars_os() {
        // A variable that does not concern this crate need not be UTF-8.
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => env.push((name, value)),
            Err(_) if path(&name).is_some() => {
                issues.push(ConfigIssue::new(name, "is not UTF-8", "write it in UTF-8"));
            }
            Err(_) => {}
        }
    }
    load_with(file, env, issues)
}

/// Loads like [`load`], from an environment that may not be this process's.
pub(super) fn load_with(
    file: Option<&Path>,
    env: Vec<(String, String)>,
    mut issues: Vec<ConfigIssue>,
) -> Result<Config, ConfigError> {
    let named = env.iter().find(|(name, value)| name == FILE_VARIABLE && !value.trim().is_empty());
    let (path, key) = match (file, named) {
        (Some(path), _) => (path, "configuration file"),
        (None, Some((_, path))) => (Path::new(path.trim()), FILE_VARIABLE),
        (None, None) => (Path::new(FILE), FILE),
    };
    let shown = path.to_string_lossy().into_owned();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound && key == FILE => None,
        Err(error) => {
            issues.push(file::unreadable(key, path, &error));
            None
        }
    };
    read(text.as_deref().map(|text| (shown.as_str(), text)), env, issues)
}

/// Reads a configuration from the given file and environment only.
///
/// The file is given by its name and its text.
pub(super) fn read(
    file: Option<(&str, &str)>,
    env: impl IntoIterator<Item = (String, String)>,
    mut issues: Vec<ConfigIssue>,
) -> Result<Config, ConfigError> {
    let env: Vec<_> = env.into_iter().filter(|(_, value)| !value.trim().is_empty()).collect();
    let file = file.map_or_else(Map::new, |(shown, text)| {
        File::from_str(text, FileFormat::Toml).collect().unwrap_or_else(|error| {
            issues.push(not_toml(shown, &error));
            Map::new()
        })
    });
    // The origin of a variable's value is the name of the variable.
    let variable =
        |(name, text): &(String, String)| Some((path(name)?, Value::new(Some(name), text.as_str())));
    let variables: Map<_, _> = env.iter().filter_map(variable).collect();
    let merged = config::Config::builder()
        .add_source(layer(file.clone()))
        .add_source(layer(variables.clone()))
        .build()
        .and_then(|merged| merged.collect())
        .expect("both layers were read before");
    let mut reader = Reader::new("", merged);
    // Merging replaces a value by a table, or the reverse. A `pool = 3` is an issue even beside `pool.max_size`.
    reader.add_table("", variables);
    reader.add_table("", file);
    // A file that could not be read may contain nodes, so a missing primary is not reported as well.
    reader.diagnostics.nodes_incomplete = !issues.is_empty();
    reader.diagnostics.issues = issues;
    let (config, diagnostics) = read_all(reader, &env);
    config.check(diagnostics, ("DATABASE_URL", NO_PRIMARY_REMEDY))
}

/// Returns values by path as a layer to merge.
fn layer(mut values: Map<String, Value>) -> config::Config {
    // The library takes `a[9]` for the tenth value of an array, and makes room for it.
    values.retain(|key, _| !key.contains('['));
    let mut layer = config::Config::default();
    layer.cache = values.into();
    layer
}

/// Reads the nodes and all settings.
pub(super) fn read_all(mut reader: Reader, env: &[(String, String)]) -> (UncheckedConfig, Diagnostics) {
    let nodes = nodes::read(&mut reader, env);
    let mut settings: Settings = reader.group();
    settings.causal.read_file(&mut reader.diagnostics);
    (UncheckedConfig { nodes, settings }, reader.finish())
}

/// Returns the path that a variable stands for.
///
/// A misspelt variable gives its own name, and `None` is a variable that does not concern this crate.
fn path(name: &str) -> Option<String> {
    if let Some(rest) = name.strip_prefix(PREFIX) {
        let path = reader::path_of(rest);
        let is_setting = name != FILE_VARIABLE && !name.starts_with(TESTKIT_PREFIX);
        let is_spelled = reader::env_name(&path) == name && !name.contains('[');
        return is_setting.then(|| if is_spelled { path } else { name.replace('[', " ") });
    }
    match name {
        "DATABASE_URL"
        | "DATABASE_REPLICA_URL"
        | "DATABASE_URL_FILE"
        | "DATABASE_REPLICA_URL_FILE"
        | "DATABASE_PASSWORD_FILE" => Some(name.to_ascii_lowercase()),
        // `DATABASE_REPLICA_URLS` must not be overlooked, or all reads would go to the primary.
        name if name.starts_with("DATABASE_REPLICA") => Some(name.replace('[', " ")),
        _ => None,
    }
}

/// Returns the issue of a file that is not TOML.
///
/// The library quotes the line, so the issue keeps only its place.
fn not_toml(shown: &str, error: &config::ConfigError) -> ConfigIssue {
    let message = error.to_string();
    let place = message.lines().next().and_then(|line| line.strip_prefix("TOML parse error at "));
    let is_place = |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase() || b" ,".contains(&b);
    let problem = match place.filter(|place| place.bytes().all(is_place)) {
        Some(place) => format!("is not valid TOML at {place}"),
        None => "is not valid TOML".to_owned(),
    };
    let remedy =
        "correct the syntax: texts and durations need quotes, a key stands once, a table is `[name]`";
    ConfigIssue::new(shown, problem, remedy)
}
