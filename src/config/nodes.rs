//! The nodes, in the simple form or as one `[[nodes]]` table per server.
//!
//! The simple form is `DATABASE_URL` and `DATABASE_REPLICA_URL`, or the files that hold them or their password.
//! This module also checks the rules for all nodes together.

use std::collections::BTreeMap;

use config::{Value, ValueKind};
use secrecy::ExposeSecret;

use super::declare::settings;
use super::reader::{Diagnostics, Reader};
use super::settings::{WORD_REMEDY, is_word};
use super::value::Setting;
use super::{ConfigIssue, InitialRole, NodeConfig, TlsMode, file};

settings! {
    /// The simple form: where the servers are.
    struct Servers in "", "Servers and program" {
        /// The URL of the server that should be the primary. The real roles are discovered.
        database_url: Urls = Urls::default(), example "\"postgres://app:change-me@db-1.example.com/payments\"";
        /// The URLs of the replicas, separated by commas; in TOML also an array.
        ///
        /// Without replicas the primary serves the reads.
        database_replica_url: Urls = Urls::default(), example "[\"postgres://app:change-me@db-2.example.com/payments\"]";
        /// The path of a file that holds the URL, instead of `database_url`.
        database_url_file: Option<String> = None, example "\"/run/secrets/database_url\"";
        /// The path of a file that holds the URLs, instead of `database_replica_url`.
        ///
        /// Commas or line ends separate them.
        database_replica_url_file: Option<String> = None, example "\"/run/secrets/database_replica_url\"";
        /// The path of a file that holds the password of every URL that has none.
        database_password_file: Option<String> = None, example "\"/run/secrets/database_password\"";
    }

    /// One `[[nodes]]` table.
    struct NodeTable in "", "Nodes in detail" {
        /// The URL of the server.
        url: Option<String> = None, example "URL";
        /// The variable that holds the URL, instead of `url`.
        ///
        /// With it, no password stands in the file.
        url_env: Option<String> = None, example "variable";
        /// The path of a file that holds the URL, instead of `url`.
        url_file: Option<String> = None, example "path";
        /// The path of a file that holds the password of a URL without one.
        password_file: Option<String> = None, example "path";
        /// The role that the node should have at the start, `primary` or `replica`.
        ///
        /// The real roles are discovered.
        role: InitialRole = InitialRole::Replica;
        /// The name of the node in logs and metrics, `host:port` unless given.
        ///
        /// It is unique, and has 1 to 63 of the characters `a-z A-Z 0-9 . _ -`.
        name: Option<String> = None, example "word";
        /// The zone that the node is in.
        zone: Option<String> = None;
        /// Words that stand with the node in the topology and in `/health`.
        tags: Vec<String> = Vec::new();
        /// Share of the reads relative to the other nodes, 1 to 1000.
        weight: u32 = 1;
        /// `false` for a node that must never be the primary.
        ///
        /// Such a node is a delayed or reporting one (Patroni's `nofailover`).
        ///
        /// If it is promoted all the same, it is fenced, and does not by itself fence another node.
        promotable: bool = true;
    }
}

/// The nodes that were read, each with its key.
pub(super) type Nodes = Vec<(String, NodeConfig)>;

/// URLs in a text, separated by commas, or in an array of texts.
#[derive(Clone, Debug, Default, PartialEq)]
struct Urls(Vec<String>);

impl Setting for Urls {
    const WHAT: &'static str = "a text";
    const REMEDY: &'static str = "write a URL in quotes, several separated by commas";
    const VALUES: &'static str = "URLs";
    type Bound = u32;

    fn read(value: &Value) -> Option<Self> {
        match &value.kind {
            ValueKind::String(text) => Some(Self(split(text))),
            ValueKind::Array(values) => {
                let lists = values.iter().map(|value| Self::read(value).map(|urls| urls.0));
                lists.collect::<Option<Vec<_>>>().map(|lists| Self(lists.concat()))
            }
            _ => None,
        }
    }

    fn show(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// Splits at the commas between URLs, but not at those within one.
///
/// A password may contain commas.
fn split(text: &str) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    for piece in text.split(',') {
        let begins = |scheme| piece.trim_start().starts_with(scheme);
        match urls.last_mut() {
            Some(last) if !begins("postgres://") && !begins("postgresql://") => {
                last.push(',');
                last.push_str(piece);
            }
            _ => urls.push(piece.to_owned()),
        }
    }
    let trimmed = urls.iter().map(|url| url.trim().trim_end_matches(',').trim_end().to_owned());
    trimmed.filter(|url| !url.is_empty()).collect()
}

/// Reads the nodes, from the keys of the simple form or from `[[nodes]]`.
pub(super) fn read(reader: &mut Reader, env: &[(String, String)]) -> Nodes {
    let tables = reader.take("nodes");
    let servers: Servers = reader.group();
    let diagnostics = &mut reader.diagnostics;
    let tables = match tables.map(|tables| tables.kind) {
        None => return simple(servers, diagnostics),
        Some(ValueKind::Array(tables)) if tables.is_empty() => return simple(servers, diagnostics),
        Some(ValueKind::Array(tables)) => tables,
        Some(_) => {
            let remedy = "write `[[nodes]]` before each node";
            diagnostics.report_node([ConfigIssue::new("nodes", "is not an array of tables", remedy)]);
            return Nodes::new();
        }
    };
    let mut nodes = Nodes::new();
    let mut taken = Vec::new();
    for (index, table) in tables.into_iter().enumerate() {
        match of_table(index, table, env) {
            Ok((key, node, variable)) => {
                nodes.push((key, node));
                taken.extend(variable);
            }
            Err(issues) => diagnostics.report_node(issues),
        }
    }
    for path in SIMPLE {
        let is_extra = diagnostics.is_written(path) && !taken.contains(&diagnostics.key(path));
        if is_extra && !diagnostics.nodes_incomplete {
            diagnostics.report(
                path,
                "is set beside `[[nodes]]`, so it is unclear which nodes there are",
                "remove one of the two, or let one of the nodes take its URL from there by `url_env`; a node has \
                 its own `url_file` and `password_file`",
            );
        }
    }
    nodes
}

const PASSWORD_FILE: &str = "database_password_file";
const SIMPLE: [&str; 5] =
    ["database_url", "database_replica_url", "database_url_file", "database_replica_url_file", PASSWORD_FILE];

/// Parses the nodes of the simple form.
fn simple(servers: Servers, diagnostics: &mut Diagnostics) -> Nodes {
    diagnostics.nodes_incomplete |= !diagnostics.all_valid(&SIMPLE);
    let password = servers.database_password_file.and_then(|path| {
        let read = file::read_password(&diagnostics.key(PASSWORD_FILE), &path);
        read.map_err(|issue| diagnostics.report_node([issue])).ok()
    });
    let mut nodes = Nodes::new();
    for (path, role, urls, from_file) in [
        ("database_url", InitialRole::Primary, servers.database_url, servers.database_url_file),
        (
            "database_replica_url",
            InitialRole::Replica,
            servers.database_replica_url,
            servers.database_replica_url_file,
        ),
    ] {
        match urls_of(diagnostics, path, urls, from_file) {
            Ok((key, urls)) if role == InitialRole::Primary && urls.len() > 1 => {
                let remedy = "keep one, and put the others into DATABASE_REPLICA_URL";
                diagnostics.report_node([ConfigIssue::new(key, "has several URLs", remedy)]);
            }
            Ok((key, urls)) => {
                let several = urls.len() > 1;
                for (index, url) in urls.into_iter().enumerate() {
                    let key = if several { format!("{key}[{index}]") } else { key.clone() };
                    add(&mut nodes, (key, url), role, diagnostics);
                }
            }
            Err(issue) => diagnostics.report_node([issue]),
        }
    }
    let Some(password) = password else { return nodes };
    let is_used = nodes.is_empty() || nodes.iter().any(|(_, node)| node.password().is_none());
    if !is_used && !diagnostics.nodes_incomplete {
        let problem = "is not used, because each URL has its own password";
        diagnostics.report(PASSWORD_FILE, problem, "remove the password from the URLs");
    }
    let give = |(key, node): (String, NodeConfig)| match node.password() {
        Some(_) => (key, node),
        None => (key, node.with_password(password.clone())),
    };
    nodes.into_iter().map(give).collect()
}

/// Parses the URL of a key, and adds its node or its issues.
pub(super) fn add(
    nodes: &mut Nodes,
    (key, url): (String, String),
    role: InitialRole,
    diagnostics: &mut Diagnostics,
) {
    match NodeConfig::parse(&key, &url, role) {
        Ok(node) => nodes.push((key, node)),
        Err(issues) => diagnostics.report_node(issues),
    }
}

/// Returns the URLs of one role, with the key that they come from.
fn urls_of(
    diagnostics: &Diagnostics,
    path: &str,
    urls: Urls,
    from_file: Option<String>,
) -> Result<(String, Vec<String>), ConfigIssue> {
    let Some(file) = from_file else { return Ok((diagnostics.key(path), urls.0)) };
    let key = diagnostics.key(&format!("{path}_file"));
    if diagnostics.is_written(path) {
        let problem = format!("is set beside {}", diagnostics.key(path));
        return Err(ConfigIssue::new(key, problem, "remove one of the two"));
    }
    let text = file::read_secret(&key, &file)?;
    // One URL per line works as well as commas between them.
    Ok((key, split(&text.expose_secret().replace(['\r', '\n'], ","))))
}

/// Reads one `[[nodes]]` table.
///
/// Returns the node, its key, and the variable that held its URL.
fn of_table(
    index: usize,
    table: Value,
    env: &[(String, String)],
) -> Result<(String, NodeConfig, Option<String>), Vec<ConfigIssue>> {
    let key = format!("nodes[{index}]");
    let ValueKind::Table(table) = table.kind else {
        return Err(vec![ConfigIssue::new(&key, "is not a table", "write `[[nodes]]` before each node")]);
    };
    let mut reader = Reader::new(&format!("{key}."), table);
    let row: NodeTable = reader.group();
    let Diagnostics { mut issues, .. } = reader.finish();
    // A `url` of the wrong type was reported already, and is not missing.
    let is_reported = row.url.is_none()
        && row.url_env.is_none()
        && row.url_file.is_none()
        && issues.iter().any(|issue| issue.key.starts_with(&format!("{key}.url")));
    let node = url_of(&key, &row, env).and_then(|(shown, url)| {
        let node = NodeConfig::parse(&shown, &url, row.role)?;
        match &row.password_file {
            None => Ok(node),
            Some(path) => with_password_of(&key, node, path).map_err(|issue| vec![issue]),
        }
    });
    match node {
        Ok(node) if issues.is_empty() => {
            let node = node.with_tags(row.tags).with_weight(row.weight).with_promotable(row.promotable);
            let node = row.name.into_iter().fold(node, NodeConfig::with_name);
            let node = row.zone.into_iter().fold(node, NodeConfig::with_zone);
            return Ok((key, node, row.url_env));
        }
        Err(more) if !is_reported => issues.extend(more),
        _ => {}
    }
    Err(issues)
}

/// Returns the URL of a node, after the key that it comes from.
fn url_of(
    key: &str,
    row: &NodeTable,
    env: &[(String, String)],
) -> Result<(String, String), Vec<ConfigIssue>> {
    let written = [("url", &row.url), ("url_env", &row.url_env), ("url_file", &row.url_file)];
    let written: Vec<_> =
        written.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    let of = |name: &str| format!("{key}.{name}");
    let issue = |key: &str, problem: &str, remedy| Err(vec![ConfigIssue::new(key, problem, remedy)]);
    match written[..] {
        [("url", url)] => Ok((of("url"), url.to_owned())),
        [(name @ "url_env", variable)] => match env.iter().find(|(known, _)| known == variable) {
            Some((_, url)) => Ok((of(name), url.clone())),
            None => issue(&of(name), "names a variable that is not set", "set it to the URL of the node"),
        },
        [(name, path)] => {
            let url = file::read_secret(&of(name), path).map_err(|issue| vec![issue])?;
            Ok((of(name), url.expose_secret().to_owned()))
        }
        [] => issue(
            key,
            "has no `url`",
            "add `url = \"postgres://…\"`, `url_env` with the name of a variable that holds it, or `url_file` with \
             the path of a file that does",
        ),
        [(one, _), (other, _), ..] => issue(
            key,
            &format!("has both `{one}` and `{other}`"),
            "remove one of them; `url_env` and `url_file` keep the password out of this file",
        ),
    }
}

/// Adds the password from a file to a node.
fn with_password_of(key: &str, node: NodeConfig, path: &str) -> Result<NodeConfig, ConfigIssue> {
    if node.password().is_some() {
        let remedy = "remove one of them: a password that is rotated belongs into the file";
        return Err(ConfigIssue::new(key, "has `password_file` and a password in its URL", remedy));
    }
    Ok(node.with_password(file::read_password(&format!("{key}.password_file"), path)?))
}

/// Checks each node, and all of them together.
///
/// `no_primary` is the key and the remedy of a missing primary.
pub(super) fn check(nodes: &Nodes, no_primary: (&str, &str), diagnostics: &mut Diagnostics) {
    let (mut names, mut servers, mut primary) = (BTreeMap::new(), BTreeMap::new(), None);
    for (key, node) in nodes {
        let mut issue = |problem: String, remedy| {
            diagnostics.issues.push(ConfigIssue::new(key, problem, remedy));
        };
        let is_named = node.name() != NodeConfig::default_name(node.host(), node.port());
        let is_primary = node.initial_role() == InitialRole::Primary;
        for (is_wrong, problem, remedy) in [
            (is_named && !is_word(node.name(), "._-"), "has a name that is not a plain word", WORD_REMEDY),
            (
                node.zone().is_some_and(|zone| !is_word(zone, "._-")),
                "has a zone that is not a plain word",
                WORD_REMEDY,
            ),
            (
                node.tags().iter().any(|tag| !is_word(tag, "._-:=")),
                "has a tag that is not a plain word",
                "use 1 to 63 of the characters a-z A-Z 0-9 . _ - : =",
            ),
            (
                !(1..=1_000).contains(&node.weight()),
                "has a weight that is not within 1 to 1000",
                "set 1 for an ordinary share of the reads; to take a node out, remove it",
            ),
            (
                is_primary && !node.promotable(),
                "is the primary and not promotable",
                "remove `promotable = false`, or make another node the primary",
            ),
        ] {
            if is_wrong {
                issue(problem.to_owned(), remedy);
            }
        }
        for (parameter, problem) in pem_problems(node) {
            let remedy = "name a PEM file that this user may read, or remove the parameter";
            issue(format!("has an `{parameter}` that {problem}"), remedy);
        }
        let same_server = servers.insert((node.host().to_lowercase(), node.port()), key);
        let same_name = names.insert(node.name(), key).filter(|_| same_server.is_none());
        let other_primary = if is_primary { primary.replace(key) } else { None };
        for (other, problem, remedy) in [
            (
                same_server,
                "is the same server as",
                "remove one: each server is one node, and without replicas the primary serves the reads",
            ),
            (same_name, "has the same name as", "give it another name"),
            (other_primary, "is a primary, as is", "make it a replica: the real roles are discovered"),
        ] {
            if let Some(other) = other {
                issue(format!("{problem} {other}"), remedy);
            }
        }
    }
    if primary.is_none() && !diagnostics.nodes_incomplete {
        let (key, remedy) = no_primary;
        diagnostics.issues.push(ConfigIssue::new(key, "is missing: no primary is configured", remedy));
    }
}

/// Returns the TLS files that cannot be used.
///
/// This includes files that `sslmode` does not use, because they were named for a reason.
fn pem_problems(node: &NodeConfig) -> impl Iterator<Item = (&'static str, String)> {
    let tls = node.tls();
    let files = [
        ("sslrootcert", &tls.root_certificate),
        ("sslcert", &tls.client_certificate),
        ("sslkey", &tls.client_key),
    ];
    let used = files.into_iter().filter(|_| tls.mode != TlsMode::Disable);
    used.filter_map(|(parameter, path)| Some((parameter, file::pem_problem(path.as_deref()?)?)))
}

/// Returns the settings of a `[[nodes]]` table.
#[cfg(test)]
pub(super) fn table_settings() -> Vec<super::reader::Documented> {
    let mut reader = Reader::default();
    reader.group::<NodeTable>();
    reader.known
}
