//! Where a configuration comes from: defaults, a file, the environment.

use std::io::ErrorKind;
use std::path::Path;

use config::{Environment, File, FileFormat, Map, Source, Value, ValueKind};

use super::draft::Draft;
use super::reader::{self, Known, Reader};
use super::simple::Simple;
use super::validate::{self, Findings};
use super::{Config, ConfigError, ConfigIssue, NodeConfig, file};

/// The file that is read if it exists.
pub(super) const FILE: &str = "pointsman.toml";
/// Names another file.
const FILE_VARIABLE: &str = "POINTSMAN_CONFIG";
const PRIMARY_VARIABLE: &str = "DATABASE_URL";
const REPLICA_VARIABLE: &str = "DATABASE_REPLICA_URL";
/// The variables without our prefix: where the servers are, and their secrets.
const URL_VARIABLES: &[&str] = &[
    PRIMARY_VARIABLE,
    REPLICA_VARIABLE,
    "DATABASE_URL_FILE",
    "DATABASE_REPLICA_URL_FILE",
    "DATABASE_PASSWORD_FILE",
];
const PREFIX: &str = "POINTSMAN_";
/// Variables with our prefix that are not settings.
const RESERVED: &[&str] = &[FILE_VARIABLE];
/// The test kit has variables of its own, and runs in one process with what it tests.
const TESTKIT_PREFIX: &str = "POINTSMAN_TESTKIT_";

const NO_PRIMARY_REMEDY: &str = "set it as DATABASE_URL=postgres://user:password@host/database, name a file that holds \
                           it by DATABASE_URL_FILE, or give one of the `[[nodes]]` in the file `role = \"primary\"`";

/// Loads from `file`, or the file that the environment names, or `pointsman.toml` if it exists.
pub(super) fn load(file: Option<&Path>) -> Result<Config, ConfigError> {
    let mut faults = Vec::new();
    let env = environment(&mut faults);
    load_with(file, env, faults)
}

/// As [`load`], with an environment that need not be the one of this process.
pub(super) fn load_with(
    file: Option<&Path>,
    env: Vec<(String, String)>,
    mut faults: Vec<ConfigIssue>,
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
            faults.push(file::unreadable(key, path, &error));
            None
        }
    };
    read(text.as_deref().map(|text| (shown.as_str(), text)), env, faults)
}

/// The variables that concern us. Others aren't looked at, so that they needn't be UTF-8.
fn environment(faults: &mut Vec<ConfigIssue>) -> Vec<(String, String)> {
    let mut env = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => env.push((name, value)),
            Err(_) if concerns_us(&name) => {
                faults.push(ConfigIssue::new(name, "is not UTF-8", "write it in UTF-8"));
            }
            Err(_) => {}
        }
    }
    // In an order of its own, so that the faults always come in the same one.
    env.sort();
    env
}

fn concerns_us(name: &str) -> bool {
    URL_VARIABLES.contains(&name) || looks_like_replica_variable(name) || name.starts_with(PREFIX)
}

/// `DATABASE_REPLICA_URLS` and its like must not be overlooked: reads would go to the primary.
fn looks_like_replica_variable(name: &str) -> bool {
    name.starts_with("DATABASE_REPLICA")
}

/// Every key that exists, outside of `[[nodes]]`.
pub(super) fn known() -> Vec<Known> {
    let mut reader = Reader::new("", []);
    Simple::take(&mut reader);
    Draft::read(&mut reader);
    reader.known
}

/// Reads a configuration from a file (what to call it, its text) and the environment only.
pub(super) fn read(
    file: Option<(&str, &str)>,
    env: impl IntoIterator<Item = (String, String)>,
    faults: Vec<ConfigIssue>,
) -> Result<Config, ConfigError> {
    let mut findings = Findings { faults, ..Findings::default() };
    let env: Vec<_> = env.into_iter().filter(|(_, value)| !value.trim().is_empty()).collect();
    let file = file
        .map_or_else(config::Config::default, |(shown, text)| parse_file(shown, text, &mut findings.faults));
    // In a file that couldn't be read there may be nodes: don't miss them on top of that.
    findings.nodes_incomplete = !findings.faults.is_empty();
    let settings = sift(&env, &mut findings.faults);

    let from_file = Reader::new("", table(&file));
    let mut reader = Reader::new("", table(&merge(file, settings)));
    let nodes = nodes(&mut reader, &env, &mut findings);
    let mut draft = Draft::read(&mut reader);
    draft.nodes = nodes;
    reader.finish();
    shadowed(&from_file, &mut reader);

    findings.faults.append(&mut reader.faults);
    findings.poisoned.append(&mut reader.poisoned);
    validate::finish(draft, &reader.names, findings, (PRIMARY_VARIABLE, NO_PRIMARY_REMEDY))
}

/// Parses TOML. What the library says about a fault quotes the line; only the place goes on.
fn parse_file(shown: &str, text: &str, faults: &mut Vec<ConfigIssue>) -> config::Config {
    let source = File::from_str(text, FileFormat::Toml);
    match config::Config::builder().add_source(source).build() {
        Ok(file) => file,
        Err(error) => {
            let message = error.to_string();
            let place = message
                .lines()
                .next()
                .and_then(|line| line.strip_prefix("TOML parse error at "))
                .filter(|place| {
                    place.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase() || b" ,".contains(&b))
                });
            let problem = match place {
                Some(place) => format!("is not valid TOML at {place}"),
                None => "is not valid TOML".to_owned(),
            };
            faults.push(ConfigIssue::new(
                shown,
                problem,
                "correct the syntax: texts and durations need quotes, a key stands once, a table is `[name]`",
            ));
            config::Config::default()
        }
    }
}

/// Picks the settings out of the environment, as a map from variable to value.
fn sift(env: &[(String, String)], faults: &mut Vec<ConfigIssue>) -> Map<String, String> {
    let known = known();
    let mut settings = Map::new();
    for (name, value) in env {
        if URL_VARIABLES.contains(&name.as_str()) {
            settings.insert(name.clone(), value.clone());
        } else if looks_like_replica_variable(name) {
            faults.push(ConfigIssue::new(
                name,
                "is not a known key",
                format!(
                    "did you mean `{REPLICA_VARIABLE}`? It takes several URLs, separated by commas, and \
                     `{REPLICA_VARIABLE}_FILE` the path of a file that holds them"
                ),
            ));
        } else if let Some(rest) = name.strip_prefix(PREFIX)
            && !RESERVED.contains(&name.as_str())
            && !name.starts_with(TESTKIT_PREFIX)
        {
            let path = rest.to_ascii_lowercase().replace("__", ".");
            if known.iter().any(|known| known.path == path && reader::env_name(&path) == *name) {
                settings.insert(name.clone(), value.clone());
            } else {
                let remedy = reader::suggestion(&path, &known, reader::env_name);
                faults.push(ConfigIssue::new(name, "is not a known key", remedy));
            }
        }
    }
    settings
}

/// Lays the environment over the file.
fn merge(file: config::Config, settings: Map<String, String>) -> config::Config {
    let (urls, settings) = settings.into_iter().partition(|(name, _)| !name.starts_with(PREFIX));
    let prefixed = Environment::with_prefix(PREFIX.trim_end_matches('_'))
        .prefix_separator("_")
        .separator("__")
        .source(Some(settings));
    config::Config::builder()
        .add_source(file)
        .add_source(Environment::default().source(Some(urls)))
        .add_source(prefixed)
        .build()
        .expect("tables and texts in memory merge without a fault")
}

fn table(config: &config::Config) -> Map<String, Value> {
    config.collect().expect("the root of a configuration is a table")
}

/// Reports what the file has in a place where the environment needs a table: it was overwritten.
fn shadowed(file: &Reader, merged: &mut Reader) {
    for path in file.leaves() {
        if !merged.names.has(path) {
            merged.fault(path, "is not a table", format!("write `[{path}]` and its keys below it"));
        }
    }
}

/// All nodes, from the keys of the simple form or from `[[nodes]]`.
fn nodes(
    reader: &mut Reader,
    env: &[(String, String)],
    findings: &mut Findings,
) -> Vec<(String, NodeConfig)> {
    let detailed = reader.take_raw("nodes").map(|value| value.kind);
    let given = Simple::take(reader);
    let tables = match detailed {
        None => return given.nodes(reader, findings),
        Some(ValueKind::Array(tables)) if tables.is_empty() => return given.nodes(reader, findings),
        Some(ValueKind::Array(tables)) => tables,
        Some(_) => {
            let fault =
                ConfigIssue::new("nodes", "is not an array of tables", "write `[[nodes]]` before each node");
            findings.node_faults(vec![fault]);
            return Vec::new();
        }
    };
    let mut nodes = Vec::new();
    let mut taken = Vec::new();
    for (index, table) in tables.into_iter().enumerate() {
        match super::node_table::read(index, table, env) {
            Ok((key, node, variable)) => {
                nodes.push((key, node));
                taken.extend(variable);
            }
            Err(faults) => findings.node_faults(faults),
        }
    }
    for key in given.keys(reader) {
        if !taken.contains(&key) && !findings.nodes_incomplete {
            findings.faults.push(ConfigIssue::new(
                key,
                "is set beside `[[nodes]]`, so it is unclear which nodes there are",
                "remove one of the two, or let one of the nodes take its URL from there by `url_env`; a node has \
                 `url_file` and `password_file` of its own",
            ));
        }
    }
    nodes
}
