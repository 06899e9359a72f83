//! Decides by its content what is done with a memory file (pure).
//!
//! | the file | what happens |
//! |---|---|
//! | is missing | it is written |
//! | is of the same cluster | it is written if something changed; it names no lower timeline, unless the set forgot one |
//! | is of another cluster | it is kept as `<file>.foreign`, and written |
//! | is damaged | it is kept as `<file>.corrupt`, and written |
//! | is from a later version, unreadable, or no memory file | it is left alone, and nothing is written |
//!
//! If the set forgot its cluster (an operator's decision, or another cluster in its place), the file is overwritten, or
//! removed until the nodes have shown which cluster they are.

use super::text::TextError;
use super::{Memory, Remembered};

/// The content of a memory file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// There is no file.
    Missing,
    /// A memory of this version.
    Valid(Memory),
    /// The file is from this crate, and damaged; this is the reason.
    Corrupt(String),
    /// The file cannot be used, and must not be changed; this is the reason.
    Untouchable(String),
}

impl Found {
    /// Returns the content of a file with this text.
    pub(super) fn of(text: Result<&str, std::str::Utf8Error>) -> Self {
        let memory = match text {
            Ok(text) => Memory::from_text(text),
            Err(_) => Err(TextError::Unmarked),
        };
        match memory {
            Ok(memory) => Self::Valid(memory),
            Err(TextError::Corrupt(reason)) => Self::Corrupt(reason),
            Err(TextError::Newer(version)) => {
                Self::Untouchable(format!("a later version of this program wrote it (version {version})"))
            }
            Err(TextError::Unmarked) => Self::Untouchable("it is not a memory file".to_owned()),
        }
    }
}

/// The name under which a replaced file is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Foreign,
    Corrupt,
}

impl Kept {
    /// Returns the end of the name under which the file is kept.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Foreign => ".foreign",
            Self::Corrupt => ".corrupt",
        }
    }
}

/// A change of a memory file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The file stays as it is.
    Nothing,
    /// The file is written; the one before is kept under another name, or overwritten.
    Write { memory: Memory, keep: Option<Kept> },
    /// The file is removed.
    Remove,
    /// The file cannot be used, and is left alone.
    Refuse(String),
}

/// Returns how to bring a file up to date.
///
/// `own` is the content if this program wrote or read the file last. `forgot` is `true` if the set has forgotten
/// something since.
pub(super) fn plan(found: &Found, own: Option<&Memory>, wanted: &Remembered, forgot: bool) -> Step {
    let Some(memory) = &wanted.memory else {
        return match found {
            Found::Valid(_) if forgot => Step::Remove,
            _ => Step::Nothing,
        };
    };
    let write = |keep| Step::Write { memory: memory.clone(), keep };
    match found {
        Found::Missing => write(None),
        Found::Corrupt(_) => write(Some(Kept::Corrupt)),
        Found::Untouchable(reason) => Step::Refuse(reason.clone()),
        Found::Valid(before) if before == memory => Step::Nothing,
        Found::Valid(_) if forgot => write(None),
        Found::Valid(before) if before.system_identifier != memory.system_identifier => {
            write(Some(Kept::Foreign))
        }
        // Another program saw more.
        Found::Valid(before) if before.timeline > memory.timeline => Step::Nothing,
        Found::Valid(before) if before.timeline == memory.timeline && Some(before) != own => {
            let memory = memory.with(before);
            if memory == *before { Step::Nothing } else { Step::Write { memory, keep: None } }
        }
        Found::Valid(_) => write(None),
    }
}

impl Memory {
    /// Adds the nodes that only another program saw on the same timeline.
    fn with(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.departed |= other.departed;
        for (address, node) in &other.nodes {
            both.nodes.entry(address.clone()).or_insert(*node);
        }
        both
    }
}
