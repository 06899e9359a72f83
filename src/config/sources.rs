//! Where a configuration comes from: defaults, a file, the environment.

use std::io::ErrorKind;
use std::path::Path;

use config::{Environment, File, FileFormat, Map, Source, Value, ValueKind};
use secrecy::ExposeSecret;

use super::draft::Draft;
use super::reader::{self, Known, Reader};
use super::validate::{self, Findings};
use super::{Config, ConfigError, Fault, NodeConfig, RoleGuess, file};

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
/// The key of the password's file, for all URLs without a password.
const PASSWORD_FILE: &str = "database_password_file";
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
    mut faults: Vec<Fault>,
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
fn environment(faults: &mut Vec<Fault>) -> Vec<(String, String)> {
    let mut env = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => env.push((name, value)),
            Err(_) if concerns_us(&name) => {
                faults.push(Fault::new(name, "is not UTF-8", "write it in UTF-8"));
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
    urls(&mut reader);
    Draft::read(&mut reader);
    reader.known
}

/// Reads a configuration from a file (what to call it, its text) and the environment only.
pub(super) fn read(
    file: Option<(&str, &str)>,
    env: impl IntoIterator<Item = (String, String)>,
    faults: Vec<Fault>,
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
fn parse_file(shown: &str, text: &str, faults: &mut Vec<Fault>) -> config::Config {
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
            faults.push(Fault::new(
                shown,
                problem,
                "correct the syntax: texts and durations need quotes, a key stands once, a table is `[name]`",
            ));
            config::Config::default()
        }
    }
}

/// Picks the settings out of the environment, as a map from variable to value.
fn sift(env: &[(String, String)], faults: &mut Vec<Fault>) -> Map<String, String> {
    let known = known();
    let mut settings = Map::new();
    for (name, value) in env {
        if URL_VARIABLES.contains(&name.as_str()) {
            settings.insert(name.clone(), value.clone());
        } else if looks_like_replica_variable(name) {
            faults.push(Fault::new(
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
                faults.push(Fault::new(name, "is not a known key", remedy));
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

/// What the keys of the simple form hold.
struct Simple {
    /// Each path, what it was set to, and the role that it stands for; those that hold URLs come before those of files.
    urls: [(&'static str, Option<Value>, RoleGuess); 2],
    files: [Option<Value>; 2],
    password: Option<Value>,
}

/// The path of the key beside `path` that names a file with the same content.
fn file_path(path: &str) -> String {
    format!("{path}_file")
}

/// The URLs as the keys hold them: text, or in TOML an array of texts.
fn urls(reader: &mut Reader) -> Simple {
    let urls = [("database_url", RoleGuess::Primary), ("database_replica_url", RoleGuess::Replica)];
    Simple {
        urls: urls.map(|(path, guess)| (path, reader.take_raw(path), guess)),
        files: urls.map(|(path, _)| reader.take_raw(&file_path(path))),
        password: reader.take_raw(PASSWORD_FILE),
    }
}

/// All nodes, from the keys of the simple form or from `[[nodes]]`.
fn nodes(
    reader: &mut Reader,
    env: &[(String, String)],
    findings: &mut Findings,
) -> Vec<(String, NodeConfig)> {
    let detailed = reader.take_raw("nodes").map(|value| value.kind);
    let given = urls(reader);
    let tables = match detailed {
        None => return simple(reader, given, findings),
        Some(ValueKind::Array(tables)) if tables.is_empty() => return simple(reader, given, findings),
        Some(ValueKind::Array(tables)) => tables,
        Some(_) => {
            let fault =
                Fault::new("nodes", "is not an array of tables", "write `[[nodes]]` before each node");
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
    let files = given.urls.iter().map(|(path, ..)| file_path(path)).zip(given.files);
    let urls = given.urls.iter().map(|(path, value, _)| ((*path).to_owned(), value.clone()));
    for (path, value) in urls.chain(files).chain([(PASSWORD_FILE.to_owned(), given.password)]) {
        let key = reader.name(&path);
        if value.is_some() && !taken.contains(&key) && !findings.nodes_incomplete {
            findings.faults.push(Fault::new(
                key,
                "is set beside `[[nodes]]`, so it is unclear which nodes there are",
                "remove one of the two, or let one of the nodes take its URL from there by `url_env`; a node has \
                 `url_file` and `password_file` of its own",
            ));
        }
    }
    nodes
}

/// The nodes of the simple form.
fn simple(reader: &Reader, given: Simple, findings: &mut Findings) -> Vec<(String, NodeConfig)> {
    let password = given.password.map(|value| {
        let key = reader.name(PASSWORD_FILE);
        path_of(value).ok_or_else(|| not_a_path(&key)).and_then(|path| file::read_password(&key, &path))
    });
    let password = match password.transpose() {
        Ok(password) => password,
        Err(fault) => {
            findings.node_faults(vec![fault]);
            None
        }
    };
    let mut nodes = Vec::new();
    let mut password_is_used = false;
    for ((path, value, guess), from_file) in given.urls.into_iter().zip(given.files) {
        let (key, value) = match (value, from_file) {
            (value, None) => (reader.name(path), value),
            (None, Some(named)) => {
                let key = reader.name(&file_path(path));
                let read = path_of(named)
                    .ok_or_else(|| not_a_path(&key))
                    .and_then(|named| file::read_secret(&key, &named));
                match read {
                    // One URL a line is as good as commas between them.
                    Ok(text) => (key, Some(text.expose_secret().replace(['\r', '\n'], ",").into())),
                    Err(fault) => {
                        findings.node_faults(vec![fault]);
                        continue;
                    }
                }
            }
            (Some(_), Some(_)) => {
                let problem = format!("is set beside {}", reader.name(path));
                let fault = Fault::new(reader.name(&file_path(path)), problem, "remove one of the two");
                findings.node_faults(vec![fault]);
                continue;
            }
        };
        let Some(list) = value.map(|value| texts(value.kind)) else { continue };
        let Some(urls) = list else {
            let remedy = "write a URL in quotes, several separated by commas";
            findings.node_faults(vec![Fault::new(key, "is not a text", remedy)]);
            continue;
        };
        if guess == RoleGuess::Primary && urls.len() > 1 {
            let remedy = "keep one, and put the others into DATABASE_REPLICA_URL";
            findings.node_faults(vec![Fault::new(key, "has several URLs", remedy)]);
            continue;
        }
        let several = urls.len() > 1;
        for (index, url) in urls.iter().enumerate() {
            let key = if several { format!("{key}[{index}]") } else { key.clone() };
            match NodeConfig::parse(&key, url, guess) {
                Ok(node) => {
                    let node = match &password {
                        // A URL may have a password of its own: that of another role.
                        Some(password) if node.password().is_none() => {
                            password_is_used = true;
                            node.with_password(password.clone())
                        }
                        _ => node,
                    };
                    nodes.push((key, node));
                }
                Err(faults) => findings.node_faults(faults),
            }
        }
    }
    if password.is_some() && !password_is_used && !findings.nodes_incomplete && !nodes.is_empty() {
        let problem = "is not used, because each URL has a password of its own";
        let fault = Fault::new(reader.name(PASSWORD_FILE), problem, "remove the password from the URLs");
        findings.faults.push(fault);
    }
    nodes
}

/// The path that a key is set to.
fn path_of(value: Value) -> Option<String> {
    match value.kind {
        ValueKind::String(path) => Some(path.trim().to_owned()),
        _ => None,
    }
}

fn not_a_path(key: &str) -> Fault {
    Fault::new(key, "is not a text", "write the path of a file in quotes")
}

/// The URLs in a text or an array of texts.
fn texts(kind: ValueKind) -> Option<Vec<String>> {
    match kind {
        ValueKind::String(text) => Some(split(&text)),
        ValueKind::Array(values) => values
            .into_iter()
            .map(|value| texts(value.kind))
            .collect::<Option<Vec<_>>>()
            .map(|lists| lists.concat()),
        _ => None,
    }
}

/// Splits at the commas between URLs, not at those within one: a password may have some.
fn split(text: &str) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    for piece in text.split(',') {
        let begins =
            ["postgres://", "postgresql://"].iter().any(|scheme| piece.trim_start().starts_with(scheme));
        match urls.last_mut() {
            Some(last) if !begins => {
                last.push(',');
                last.push_str(piece);
            }
            _ => urls.push(piece.to_owned()),
        }
    }
    urls.iter()
        .map(|url| url.trim().trim_end_matches(',').trim_end().to_owned())
        .filter(|url| !url.is_empty())
        .collect()
}
