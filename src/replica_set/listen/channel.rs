//! Checks and quotes channel names, which mean the same as in `pg_notify`.
//!
//! Pure.
//!
//! `LISTEN` takes an identifier, folds it to lower case unless it is quoted, and truncates a long one with only a
//! notice. `pg_notify` takes a text as it is, and rejects a long one. So every name is quoted here, and a name that
//! `pg_notify` would reject is an error.

use std::collections::BTreeSet;

use crate::error::{InvalidChannel, ListenError};

/// Bytes of the longest identifier: `NAMEDATALEN` less the zero at its end.
const LONGEST: usize = 63;

/// The channels to listen to, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Channels(BTreeSet<String>);

impl Channels {
    /// Checks the names.
    ///
    /// # Errors
    ///
    /// If there is no name, or `pg_notify` would reject one of them.
    pub(super) fn parse<C: Into<String>>(names: impl IntoIterator<Item = C>) -> Result<Self, ListenError> {
        let names = names.into_iter().map(|name| check(name.into())).collect::<Result<BTreeSet<_>, _>>()?;
        if names.is_empty() { Err(ListenError::NoChannels) } else { Ok(Self(names)) }
    }

    /// Returns the statements that start listening.
    ///
    /// They take effect together, as one transaction.
    pub(super) fn listen(&self) -> String {
        self.statements("LISTEN")
    }

    /// Returns the statements that stop listening.
    pub(super) fn unlisten(&self) -> String {
        self.statements("UNLISTEN")
    }

    fn statements(&self, command: &str) -> String {
        let statement = |name: &String| format!("{command} \"{}\"", name.replace('"', "\"\""));
        self.0.iter().map(statement).collect::<Vec<_>>().join("; ")
    }

    /// Adds channels.
    pub(super) fn add(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    /// Removes channels.
    pub(super) fn remove(&mut self, other: &Self) {
        self.0.retain(|name| !other.0.contains(name));
    }
}

fn check(name: String) -> Result<String, ListenError> {
    let reason = match name.len() {
        0 => InvalidChannel::Empty,
        bytes if bytes > LONGEST => InvalidChannel::TooLong { bytes },
        _ if name.contains('\0') => InvalidChannel::Nul,
        _ => return Ok(name),
    };
    Err(ListenError::Channel { name, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_so_that_they_stay_what_they_are() {
        let channels = Channels::parse(["b", "Orders", "a\"b", "b", "x; DROP TABLE t"]).expect("names");
        let sql = channels.listen();
        assert_eq!(sql, r#"LISTEN "Orders"; LISTEN "a""b"; LISTEN "b"; LISTEN "x; DROP TABLE t""#);
        assert!(channels.unlisten().starts_with(r#"UNLISTEN "Orders"; "#));
    }

    #[test]
    fn what_pg_notify_refuses_is_an_error_that_names_the_channel() {
        assert!(matches!(Channels::parse([""; 0]), Err(ListenError::NoChannels)));
        let long = "ä".repeat(32);
        for (bad, expected) in [
            ("", InvalidChannel::Empty),
            (long.as_str(), InvalidChannel::TooLong { bytes: 64 }),
            ("a\0b", InvalidChannel::Nul),
        ] {
            match Channels::parse(["good", bad]) {
                Err(ListenError::Channel { name, reason }) => {
                    assert_eq!((name.as_str(), reason), (bad, expected))
                }
                other => panic!("{other:?}"),
            }
        }
        Channels::parse(["a".repeat(63)]).expect("the longest one");
    }

    #[test]
    fn channels_come_and_go() {
        let names = |names: &[&str]| Channels::parse(names.iter().copied()).expect("names");
        let mut channels = names(&["a", "b"]);
        channels.add(&names(&["c"]));
        channels.remove(&names(&["a", "x"]));
        assert_eq!(channels, names(&["b", "c"]));
    }
}
