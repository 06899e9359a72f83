//! The nodes of the simple form: `DATABASE_URL`, `DATABASE_REPLICA_URL`, and the files that hold them or their password.

use config::{Value, ValueKind};
use secrecy::ExposeSecret;

use super::reader::Reader;
use super::validate::Findings;
use super::{ConfigIssue, InitialRole, NodeConfig, Password, file};

/// The key of the password's file, for all URLs without a password.
pub(super) const PASSWORD_FILE: &str = "database_password_file";

/// The keys that hold URLs, and the role of their nodes.
const URLS: [(&str, InitialRole); 2] =
    [("database_url", InitialRole::Primary), ("database_replica_url", InitialRole::Replica)];

/// What the keys hold.
pub(super) struct Simple {
    urls: [Option<Value>; 2],
    files: [Option<Value>; 2],
    password: Option<Value>,
}

/// The path of the key beside `path` that names a file with the same content.
fn file_path(path: &str) -> String {
    format!("{path}_file")
}

impl Simple {
    /// Takes the URLs (text, or in TOML an array of texts) and the paths of files.
    pub(super) fn take(reader: &mut Reader) -> Self {
        Self {
            urls: URLS.map(|(path, _)| reader.take_raw(path)),
            files: URLS.map(|(path, _)| reader.take_raw(&file_path(path))),
            password: reader.take_raw(PASSWORD_FILE),
        }
    }

    /// Returns the keys that were set, as they were written.
    pub(super) fn keys(&self, reader: &Reader) -> Vec<String> {
        let urls = URLS.iter().map(|(path, _)| (*path).to_owned()).zip(&self.urls);
        let files = URLS.iter().map(|(path, _)| file_path(path)).zip(&self.files);
        let all = urls.chain(files).chain([(PASSWORD_FILE.to_owned(), &self.password)]);
        all.filter(|(_, value)| value.is_some()).map(|(path, _)| reader.name(&path)).collect()
    }

    /// Parses the nodes.
    pub(super) fn nodes(self, reader: &Reader, findings: &mut Findings) -> Vec<(String, NodeConfig)> {
        let password = self.password.and_then(|value| {
            let key = reader.name(PASSWORD_FILE);
            let read = path_of(value, &key).and_then(|path| file::read_password(&key, &path));
            read.map_err(|fault| findings.node_faults(vec![fault])).ok()
        });
        let mut nodes = Vec::new();
        for (((path, guess), value), from_file) in URLS.into_iter().zip(self.urls).zip(self.files) {
            match urls_of(reader, path, value, from_file, guess) {
                Ok(urls) => nodes.extend(urls.into_iter().filter_map(|(key, url)| {
                    let node = NodeConfig::parse(&key, &url, guess);
                    Some((key, node.map_err(|faults| findings.node_faults(faults)).ok()?))
                })),
                Err(fault) => findings.node_faults(vec![fault]),
            }
        }
        match password {
            Some(password) => with_password(reader, nodes, &password, findings),
            None => nodes,
        }
    }
}

/// Gives the password to the nodes whose URL has none; another role may have its own.
fn with_password(
    reader: &Reader,
    nodes: Vec<(String, NodeConfig)>,
    password: &Password,
    findings: &mut Findings,
) -> Vec<(String, NodeConfig)> {
    if nodes.iter().all(|(_, node)| node.password().is_some())
        && !findings.nodes_incomplete
        && !nodes.is_empty()
    {
        let problem = "is not used, because each URL has a password of its own";
        let fault =
            ConfigIssue::new(reader.name(PASSWORD_FILE), problem, "remove the password from the URLs");
        findings.faults.push(fault);
    }
    let give = |(key, node): (String, NodeConfig)| match node.password() {
        Some(_) => (key, node),
        None => (key, node.with_password(password.clone())),
    };
    nodes.into_iter().map(give).collect()
}

/// The URLs of one role, each with its key.
fn urls_of(
    reader: &Reader,
    path: &str,
    value: Option<Value>,
    from_file: Option<Value>,
    guess: InitialRole,
) -> Result<Vec<(String, String)>, ConfigIssue> {
    let (key, urls) = match (value, from_file) {
        (None, None) => return Ok(Vec::new()),
        (Some(value), None) => {
            let key = reader.name(path);
            let remedy = "write a URL in quotes, several separated by commas";
            let urls = texts(value.kind).ok_or_else(|| ConfigIssue::new(&key, "is not a text", remedy))?;
            (key, urls)
        }
        (None, Some(named)) => {
            let key = reader.name(&file_path(path));
            let text = file::read_secret(&key, &path_of(named, &key)?)?;
            // One URL a line is as good as commas between them.
            (key, split(&text.expose_secret().replace(['\r', '\n'], ",")))
        }
        (Some(_), Some(_)) => {
            let problem = format!("is set beside {}", reader.name(path));
            return Err(ConfigIssue::new(reader.name(&file_path(path)), problem, "remove one of the two"));
        }
    };
    if guess == InitialRole::Primary && urls.len() > 1 {
        let remedy = "keep one, and put the others into DATABASE_REPLICA_URL";
        return Err(ConfigIssue::new(key, "has several URLs", remedy));
    }
    let several = urls.len() > 1;
    let keyed = |(index, url)| (if several { format!("{key}[{index}]") } else { key.clone() }, url);
    Ok(urls.into_iter().enumerate().map(keyed).collect())
}

/// The path that a key is set to.
fn path_of(value: Value, key: &str) -> Result<String, ConfigIssue> {
    match value.kind {
        ValueKind::String(path) => Ok(path.trim().to_owned()),
        _ => Err(ConfigIssue::new(key, "is not a text", "write the path of a file in quotes")),
    }
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
