//! The text form of a memory: TOML under a line that marks it (pure).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Memory, Process, RememberedNode};

/// The beginning of each memory file; a file without it belongs to someone else.
const MARK: &str = "# Pointsman's memory";

/// The version of the text form.
///
/// A program reads this one only, and leaves a file with a higher one alone.
const VERSION: i64 = 1;

/// Nodes that a file may name: far more than one configuration has.
const NODES_MAX: usize = 1_000;

/// The reason why a text is no memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TextError {
    /// The text is not from this crate.
    Unmarked,
    /// A later version of this crate wrote the text.
    Newer(i64),
    /// The text is damaged; this is the reason.
    Corrupt(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: i64,
    system_identifier: String,
    timeline: u32,
    #[serde(default, skip_serializing_if = "is_false")]
    departed: bool,
    #[serde(default)]
    nodes: Vec<Node>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    address: String,
    #[serde(default, skip_serializing_if = "is_false")]
    wrote: bool,
    started_at_us: Option<i64>,
    port: Option<u16>,
}

impl Memory {
    /// Returns the text form.
    pub(super) fn to_text(&self) -> String {
        let Self { system_identifier, timeline, departed, nodes } = self;
        let node = |(address, node): (&Arc<str>, &RememberedNode)| Node {
            address: address.to_string(),
            wrote: node.wrote,
            started_at_us: node.process.map(|process| process.started_at_micros),
            port: node.process.map(|process| process.port),
        };
        let document = Document {
            version: VERSION,
            // TOML has no unsigned numbers of 64 bits.
            system_identifier: system_identifier.to_string(),
            timeline: *timeline,
            departed: *departed,
            nodes: nodes.iter().map(node).collect(),
        };
        let document = toml::to_string(&document).expect("texts, numbers and lists of them");
        format!(
            "{MARK} of its cluster: see \"A restart of the program\" in docs/failover.md. Do not edit it.\n{document}"
        )
    }

    /// Reads the text form.
    pub(super) fn from_text(text: &str) -> Result<Self, TextError> {
        // After a crash of the machine, a file system may have kept the name of a file and not its content.
        if text.bytes().all(|byte| byte == 0) {
            return Err(corrupt("it is empty"));
        }
        if !text.starts_with(MARK) {
            return Err(TextError::Unmarked);
        }
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| corrupt(error.message()))?;
        match table.get("version").and_then(toml::Value::as_integer) {
            Some(VERSION) => {}
            Some(newer) if newer > VERSION => return Err(TextError::Newer(newer)),
            _ => return Err(corrupt("it has no version")),
        }
        let document: Document = table.try_into().map_err(|error| corrupt(error.message()))?;
        let system_identifier = document.system_identifier.parse().map_err(|_| corrupt("no identifier"))?;
        if document.timeline == 0 {
            return Err(corrupt("there is no timeline 0"));
        }
        if document.nodes.len() > NODES_MAX {
            return Err(corrupt("it has too many nodes"));
        }
        let mut nodes = BTreeMap::new();
        for node in document.nodes {
            let process = match (node.started_at_us, node.port) {
                (Some(started_at_micros), Some(port)) => Some(Process { started_at_micros, port }),
                (None, None) => None,
                _ => return Err(corrupt("a process has a start and a port, or neither")),
            };
            let remembered = RememberedNode { wrote: node.wrote, process };
            if nodes.insert(Arc::from(node.address), remembered).is_some() {
                return Err(corrupt("it has a node twice"));
            }
        }
        let (timeline, departed) = (document.timeline, document.departed);
        Ok(Self { system_identifier, timeline, departed, nodes })
    }
}

fn corrupt(reason: &str) -> TextError {
    TextError::Corrupt(reason.to_owned())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !value
}
