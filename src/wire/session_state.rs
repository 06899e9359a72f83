//! Detects statements that change the session beyond their user's checkout.
//!
//! The server reports the commands that it completed (`SET`, `LISTEN`, …). Functions and temporary tables show only in
//! a statement's text, which is read when it is parsed. A prepared statement is parsed once, so its name is remembered,
//! and each use of it counts. Settings that a user-defined function changes at the server cannot be seen here.

/// The clean-up that a session needs before its next user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leftover {
    /// No clean-up.
    None,
    /// The session must be reset.
    State,
    /// The session must be closed, because a reset would undo too much or too little.
    Statements,
}

impl Leftover {
    /// Classifies a command by the tag with which the server completes it.
    pub(super) fn of_command(tag: &[u8]) -> Self {
        match tag {
            b"SET\0" | b"RESET\0" | b"LISTEN\0" | b"DECLARE CURSOR\0" | b"DO\0" | b"CALL\0" => Self::State,
            // Statements and libraries stay after a reset, and the driver's cache needs its prepared statements.
            b"PREPARE\0" | b"DEALLOCATE ALL\0" | b"DISCARD ALL\0" | b"LOAD\0" => Self::Statements,
            _ => Self::None,
        }
    }

    pub(super) fn pack(self) -> u8 {
        self as u8
    }

    pub(super) fn unpack(value: u8) -> Self {
        match value {
            0 => Self::None,
            1 => Self::State,
            _ => Self::Statements,
        }
    }
}

/// Bytes kept of a statement; a longer one counts as changing the session.
pub(super) const STATEMENT_KEPT: usize = 16 * 1024;

/// The prepared statements of a session that change it.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    names: Vec<Box<[u8]>>,
}

impl Prepared {
    /// Records a message to the server; returns `true` if it changes the session.
    pub(super) fn sent(&mut self, kind: u8, body: &[u8]) -> bool {
        match kind {
            b'Q' => sets_something(body),
            b'P' => {
                let Some((name, statement)) = cut(body) else { return false };
                let sets = sets_something(statement);
                if sets && !name.is_empty() && !self.names.iter().any(|known| **known == *name) {
                    self.names.push(name.into());
                }
                // A named statement is executed only after it was bound.
                sets && name.is_empty()
            }
            b'B' if !self.names.is_empty() => {
                let name = cut(body).and_then(|(_portal, rest)| cut(rest)).map(|(name, _)| name);
                name.is_some_and(|name| self.names.iter().any(|known| **known == *name))
            }
            b'C' if !self.names.is_empty() => {
                if let Some((name, _)) = body.strip_prefix(b"S").and_then(cut) {
                    self.names.retain(|known| **known != *name);
                }
                false
            }
            _ => false,
        }
    }
}

/// Returns `true` if a message removes all prepared statements.
///
/// The server reports that only when it has happened.
pub(super) fn removes_statements(kind: u8, body: &[u8]) -> bool {
    let statement = match kind {
        b'Q' => body,
        b'P' => cut(body).map_or(&[][..], |(_name, rest)| rest),
        _ => return false,
    };
    let mut words = statement.split(|byte| !byte.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    let removes =
        |word: &[u8]| word.eq_ignore_ascii_case(b"DISCARD") || word.eq_ignore_ascii_case(b"DEALLOCATE");
    words.any(removes) && words.any(|word| word.eq_ignore_ascii_case(b"ALL"))
}

/// Cuts a message at its next zero byte.
pub(super) fn cut(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = body.iter().position(|byte| *byte == 0)?;
    Some((&body[..end], &body[end + 1..]))
}

/// Returns `true` if a statement's text shows a change to the session.
///
/// Its completion does not report such a change.
fn sets_something(statement: &[u8]) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    statement.len() + 64 >= STATEMENT_KEPT
        || statement.split(|byte| !is_word(byte)).any(|word| {
            word.eq_ignore_ascii_case(b"set_config")
                || word.eq_ignore_ascii_case(b"temp")
                || word.eq_ignore_ascii_case(b"temporary")
                || starts_with(word, b"pg_temp")
                || is_advisory(word)
        })
}

fn starts_with(word: &[u8], prefix: &[u8]) -> bool {
    word.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Returns `true` if a word is a function that takes a session's advisory lock.
fn is_advisory(word: &[u8]) -> bool {
    ["pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock", "pg_try_advisory_lock_shared"]
        .iter()
        .any(|function| word.eq_ignore_ascii_case(function.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_that_set_something_are_found_and_others_are_not() {
        for statement in [
            "SELECT set_config('a.b', 'c', false)",
            "select PG_ADVISORY_LOCK($1)",
            "SELECT pg_try_advisory_lock_shared(1)",
            "CREATE TEMP TABLE t (n int)",
            "create temporary table t as select 1",
            "INSERT INTO pg_temp_3.t VALUES (1)",
        ] {
            assert!(sets_something(statement.as_bytes()), "{statement}");
        }
        for statement in [
            "SELECT attempts, template, temperature FROM t",
            "SELECT pg_advisory_xact_lock(1)",
            "SELECT contemporary, is_temp FROM t",
            "",
        ] {
            assert!(!sets_something(statement.as_bytes()), "{statement}");
        }
        assert!(sets_something(&vec![b' '; STATEMENT_KEPT]), "what follows is unknown");
    }

    #[test]
    fn a_prepared_statement_counts_each_time_until_it_is_closed() {
        let mut prepared = Prepared::default();
        assert!(!prepared.sent(b'P', b"s1\0SELECT set_config('a.b', 'c', false)\0\0\0"));
        assert!(!prepared.sent(b'P', b"s2\0SELECT 1\0\0\0"));
        for _ in 0..2 {
            assert!(prepared.sent(b'B', b"\0s1\0\0\0"));
            assert!(!prepared.sent(b'B', b"\0s2\0\0\0"));
        }
        assert!(!prepared.sent(b'C', b"Ss1\0"));
        assert!(!prepared.sent(b'B', b"\0s1\0\0\0"));
        assert!(
            prepared.sent(b'P', b"\0SELECT pg_advisory_lock(1)\0\0\0"),
            "an unnamed one has no other sign"
        );
    }

    #[test]
    fn a_statement_that_removes_all_prepared_ones_is_found_by_its_words() {
        for statement in ["DISCARD ALL", "/* a */ deallocate prepare all;", "SELECT 1; DEALLOCATE ALL"] {
            assert!(removes_statements(b'Q', statement.as_bytes()), "{statement}");
            assert!(removes_statements(b'P', format!("s1\0{statement}\0\0\0").as_bytes()), "{statement}");
        }
        for statement in ["DISCARD PLANS", "DEALLOCATE one", "SELECT all FROM t", ""] {
            assert!(!removes_statements(b'Q', statement.as_bytes()), "{statement}");
        }
        assert!(!removes_statements(b'B', b"DISCARD ALL"));
    }

    #[test]
    fn commands_are_told_by_their_tags() {
        assert_eq!(Leftover::of_command(b"SET\0"), Leftover::State);
        assert_eq!(Leftover::of_command(b"SET CONSTRAINTS\0"), Leftover::None);
        assert_eq!(Leftover::of_command(b"SELECT 1\0"), Leftover::None);
        assert_eq!(Leftover::of_command(b"PREPARE TRANSACTION\0"), Leftover::None);
        assert_eq!(Leftover::of_command(b"PREPARE\0"), Leftover::Statements);
        for leftover in [Leftover::None, Leftover::State, Leftover::Statements] {
            assert_eq!(Leftover::unpack(leftover.pack()), leftover);
        }
    }
}
