//! The issues of a configuration: all of them at once, and never a value.

use std::fmt;

/// One problem in a configuration.
///
/// An issue never holds a configured value, because any value may be a password under the wrong key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigIssue {
    /// The key as written: a variable of the environment, or a path in the file.
    pub key: String,
    /// The problem, worded to follow the key.
    pub problem: String,
    /// The remedy.
    pub remedy: String,
}

impl ConfigIssue {
    pub(crate) fn new(key: impl AsRef<str>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { key: printable(key.as_ref()), problem: problem.into(), remedy: remedy.into() }
    }
}

/// Returns a key if it can be one, and hides it otherwise.
///
/// A URL pasted as a key has a password.
fn printable(key: &str) -> String {
    let usual = |c: char| c.is_ascii_alphanumeric() || "_-.[]()/ ".contains(c);
    if key.len() <= 100 && key.chars().all(usual) {
        key.to_owned()
    } else {
        format!("a key of {} bytes with unusual characters", key.len())
    }
}

impl fmt::Display for ConfigIssue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.key, self.problem, self.remedy)
    }
}

/// A rejected configuration, with all of its issues.
///
/// No part of it is used, so a program never runs with half of the intended settings.
///
/// ```
/// use pointsman::Config;
///
/// let env = [("DATABASE_URL", "postgres://app:hunter2@db/app"), ("POINTSMAN_POOL__MAX_SIZ", "20")];
/// let error = Config::from_sources(None, env.map(|(k, v)| (k.into(), v.into()))).unwrap_err();
/// assert_eq!(error.issues()[0].key, "POINTSMAN_POOL__MAX_SIZ");
/// assert!(error.to_string().contains("did you mean `POINTSMAN_POOL__MAX_SIZE`?"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration is refused, nothing of it is used:{}", list(issues))]
pub struct ConfigError {
    issues: Vec<ConfigIssue>,
}

fn list(issues: &[ConfigIssue]) -> String {
    issues.iter().map(|issue| format!("\n  - {issue}")).collect()
}

impl ConfigError {
    pub(crate) fn new(issues: Vec<ConfigIssue>) -> Self {
        debug_assert!(!issues.is_empty(), "an error says what is wrong");
        Self { issues }
    }

    /// Returns all issues, at least one, in the order of discovery.
    #[must_use]
    pub fn issues(&self) -> &[ConfigIssue] {
        &self.issues
    }
}
