//! One `[[nodes]]` table of the file.

use config::{Value, ValueKind};
use secrecy::ExposeSecret;

use super::reader::Reader;
use super::value::{Raw, Setting};
use super::{ConfigIssue, InitialRole, NodeConfig, file};

impl Setting for InitialRole {
    const WHAT: &'static str = "a role";
    const REMEDY: &'static str = "write \"primary\" or \"replica\": it is a first guess";

    fn read(raw: Raw<'_>) -> Option<Self> {
        match raw {
            Raw::Text { text: "primary", .. } => Some(Self::Primary),
            Raw::Text { text: "replica", .. } => Some(Self::Replica),
            _ => None,
        }
    }

    fn show(&self) -> Option<String> {
        Some(format!("{:?}", self.as_str()))
    }
}

/// The settings of a node, before its URL is parsed.
struct Row {
    url: Option<String>,
    url_env: Option<String>,
    url_file: Option<String>,
    password_file: Option<String>,
    role: InitialRole,
    name: Option<String>,
    zone: Option<String>,
    tags: Vec<String>,
    weight: u32,
    promotable: bool,
}

impl Row {
    fn read(from: &mut Reader) -> Self {
        Self {
            url: from.take("url", None),
            url_env: from.take("url_env", None),
            url_file: from.take("url_file", None),
            password_file: from.take("password_file", None),
            role: from.take("role", InitialRole::Replica),
            name: from.take("name", None),
            zone: from.take("zone", None),
            tags: tags(from),
            weight: from.take("weight", 1),
            promotable: from.take("promotable", true),
        }
    }
}

/// Every key that a node has.
#[cfg(test)]
pub(super) fn known() -> Vec<super::reader::Known> {
    let mut reader = Reader::new("", []);
    Row::read(&mut reader);
    reader.known
}

/// Reads one table. Returns the node, its key, and the variable that its URL came from.
pub(super) fn read(
    index: usize,
    table: Value,
    env: &[(String, String)],
) -> Result<(String, NodeConfig, Option<String>), Vec<ConfigIssue>> {
    let key = format!("nodes[{index}]");
    let ValueKind::Table(table) = table.kind else {
        return Err(vec![ConfigIssue::new(&key, "is not a table", "write `[[nodes]]` before each node")]);
    };
    let mut reader = Reader::new(&format!("{key}."), table);
    let row = Row::read(&mut reader);
    reader.finish();
    let mut faults = std::mem::take(&mut reader.faults);
    let sound = |path: &str| !reader.poisoned.contains(path);

    let from = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, url)| url.clone());
    let given = [("url", &row.url), ("url_env", &row.url_env), ("url_file", &row.url_file)];
    let given: Vec<_> = given.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    let url = match given[..] {
        [("url", url)] => Ok((format!("{key}.url"), url.to_owned())),
        [("url_env", variable)] => {
            let key = format!("{key}.url_env");
            let unset = || {
                ConfigIssue::new(&key, "names a variable that is not set", "set it to the URL of the node")
            };
            from(variable).ok_or_else(unset).map(|url| (key.clone(), url))
        }
        [(_, path)] => {
            let key = format!("{key}.url_file");
            file::read_secret(&key, path).map(|url| (key, url.expose_secret().to_owned()))
        }
        [] if sound("url") && sound("url_env") && sound("url_file") => {
            let remedy = "add `url = \"postgres://…\"`, `url_env` with the name of a variable that holds it, or \
                          `url_file` with the path of a file that does";
            Err(ConfigIssue::new(&key, "has no `url`", remedy))
        }
        [] => return Err(faults),
        [(one, _), (other, _), ..] => {
            let remedy = "remove one of them; `url_env` and `url_file` keep the password out of this file";
            Err(ConfigIssue::new(&key, format!("has both `{one}` and `{other}`"), remedy))
        }
    };
    let node = url.map_err(|fault| vec![fault]).and_then(|(shown, url)| {
        let node = NodeConfig::parse(&shown, &url, row.role)?;
        match &row.password_file {
            None => Ok(node),
            Some(path) => with_password_of(&key, node, path).map_err(|fault| vec![fault]),
        }
    });
    match node {
        Ok(node) if faults.is_empty() => {
            let node = node.with_tags(row.tags).with_weight(row.weight);
            let mut node = node.with_promotable(row.promotable);
            if let Some(name) = row.name {
                node = node.with_name(name);
            }
            if let Some(zone) = row.zone {
                node = node.with_zone(zone);
            }
            Ok((key, node, row.url_env))
        }
        Ok(_) => Err(faults),
        Err(more) => {
            faults.extend(more);
            Err(faults)
        }
    }
}

/// Gives a node the password that a file holds.
fn with_password_of(key: &str, node: NodeConfig, path: &str) -> Result<NodeConfig, ConfigIssue> {
    if node.password().is_some() {
        let remedy = "remove one of them: a password that is rotated belongs into the file";
        return Err(ConfigIssue::new(key, "has `password_file` and a password in its URL", remedy));
    }
    Ok(node.with_password(file::read_password(&format!("{key}.password_file"), path)?))
}

fn tags(from: &mut Reader) -> Vec<String> {
    let Some(value) = from.take_raw("tags") else { return Vec::new() };
    let read = match &value.kind {
        ValueKind::Array(tags) => {
            tags.iter().map(|tag| String::read(Raw::new(&tag.kind, false))).collect::<Option<Vec<_>>>()
        }
        _ => None,
    };
    read.unwrap_or_else(|| {
        from.fault("tags", "is not an array of texts", "write `tags = [\"analytics\"]`");
        Vec::new()
    })
}
