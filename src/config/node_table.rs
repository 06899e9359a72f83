//! One `[[nodes]]` table of the file.

use config::{Value, ValueKind};

use super::reader::Reader;
use super::value::{Raw, Setting};
use super::{Fault, NodeConfig, RoleGuess};

impl Setting for RoleGuess {
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
    role: RoleGuess,
    name: Option<String>,
    zone: Option<String>,
    tags: Vec<String>,
    weight: u32,
}

impl Row {
    fn read(from: &mut Reader) -> Self {
        Self {
            url: from.take("url", None),
            url_env: from.take("url_env", None),
            role: from.take("role", RoleGuess::Replica),
            name: from.take("name", None),
            zone: from.take("zone", None),
            tags: tags(from),
            weight: from.take("weight", 1),
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
) -> Result<(String, NodeConfig, Option<String>), Vec<Fault>> {
    let key = format!("nodes[{index}]");
    let ValueKind::Table(table) = table.kind else {
        return Err(vec![Fault::new(&key, "is not a table", "write `[[nodes]]` before each node")]);
    };
    let mut reader = Reader::new(&format!("{key}."), table);
    let row = Row::read(&mut reader);
    reader.finish();
    let mut faults = std::mem::take(&mut reader.faults);
    let sound = |path: &str| !reader.poisoned.contains(path);

    let from = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, url)| url.clone());
    let (shown, url) = match (row.url, row.url_env.clone()) {
        (Some(_), Some(_)) => {
            let remedy =
                "remove one of them; `url_env` names a variable and keeps the password out of the file";
            faults.push(Fault::new(&key, "has both `url` and `url_env`", remedy));
            return Err(faults);
        }
        (Some(url), None) => (format!("{key}.url"), Some(url)),
        (None, Some(variable)) => (format!("{key}.url_env"), from(&variable)),
        (None, None) => {
            if sound("url") && sound("url_env") {
                let remedy =
                    "add `url = \"postgres://…\"`, or `url_env` with the name of a variable that holds it";
                faults.push(Fault::new(&key, "has no `url`", remedy));
            }
            return Err(faults);
        }
    };
    let node = match url {
        Some(url) => NodeConfig::parse(&shown, &url, row.role),
        None => {
            Err(vec![Fault::new(shown, "names a variable that is not set", "set it to the URL of the node")])
        }
    };
    match node {
        Ok(node) if faults.is_empty() => {
            let mut node = node.with_tags(row.tags).with_weight(row.weight);
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
