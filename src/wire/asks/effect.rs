//! The effect of a request on its transaction, by its text (pure).
//!
//! A question inside a transaction takes a snapshot. Behind a statement that took one already, that changes nothing.
//! Behind any other, such as `LOCK TABLE`, it would fix the snapshot too early, or make a later `SET TRANSACTION` fail.

use crate::wire::session_state::cut;

/// The effect of a request; of several statements, the highest counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::wire) enum Effect {
    /// It changes no data, and takes no snapshot.
    #[default]
    None,
    /// It begins with a statement that takes a snapshot, and may write.
    Snapshot,
    /// It may write, and a question must not follow.
    Other,
}

/// The effects of the prepared statements, and of the present request.
#[derive(Debug, Default)]
pub(in crate::wire) struct Effects {
    /// The named statements that do not just take a snapshot, which are few.
    named: Vec<(Box<[u8]>, Effect)>,
    unnamed: Effect,
    request: Effect,
}

impl Effect {
    /// Classifies a statement, or several in one text, by the first word.
    pub(super) fn of(text: &[u8]) -> Self {
        let text = text.trim_ascii_start();
        let text = text.strip_suffix(b"\0").unwrap_or(text);
        let end = text.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        let is = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known.as_bytes()));
        if is(&["INSERT", "UPDATE", "DELETE", "SELECT", "WITH", "MERGE", "VALUES"]) {
            return Self::Snapshot;
        }
        let is_one = !rest.trim_ascii_end().iter().rev().skip(1).any(|byte| *byte == b';');
        let ends_or_begins = is(&["SAVEPOINT", "RELEASE", "ROLLBACK", "BEGIN", "START"]);
        if is_one && (ends_or_begins || text.is_empty()) { Self::None } else { Self::Other }
    }
}

impl Effects {
    /// Records a message that prepares or closes a statement.
    pub(in crate::wire) fn learn(&mut self, kind: u8, body: &[u8]) {
        match kind {
            b'P' => {
                let Some((name, text)) = cut(body) else { return };
                let effect = Effect::of(cut(text).map_or(text, |(text, _types)| text));
                if name.is_empty() {
                    self.unnamed = effect;
                    return;
                }
                self.named.retain(|(known, _)| **known != *name);
                if effect != Effect::Snapshot {
                    self.named.push((name.into(), effect));
                }
            }
            b'C' if !self.named.is_empty() => {
                if let Some((name, _)) = body.strip_prefix(b"S").and_then(cut) {
                    self.named.retain(|(known, _)| **known != *name);
                }
            }
            _ => {}
        }
    }

    /// Adds a message to the request that is being sent.
    pub(in crate::wire) fn add(&mut self, kind: u8, body: &[u8]) {
        let effect = match kind {
            b'Q' => Effect::of(body),
            b'B' => match cut(body).and_then(|(_portal, rest)| cut(rest)) {
                Some((b"", _)) => self.unnamed,
                Some((name, _)) => self
                    .named
                    .iter()
                    .find(|(known, _)| **known == *name)
                    .map_or(Effect::Snapshot, |(_, effect)| *effect),
                None => Effect::Other,
            },
            // A function call.
            b'F' => Effect::Other,
            _ => return,
        };
        self.request = self.request.max(effect);
    }

    /// Takes the effect of the request, whose last message this was.
    pub(in crate::wire) fn take(&mut self) -> Effect {
        std::mem::take(&mut self.request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_statement_that_takes_a_snapshot_is_followed_by_a_question() {
        for (text, effect) in [
            ("INSERT INTO t VALUES (1)", Effect::Snapshot),
            ("  select 1", Effect::Snapshot),
            ("WITH x AS (SELECT 1) DELETE FROM t", Effect::Snapshot),
            ("Update t SET n = 1; LOCK TABLE t", Effect::Snapshot),
            ("SAVEPOINT diesel_savepoint_1", Effect::None),
            ("RELEASE SAVEPOINT a;", Effect::None),
            ("ROLLBACK TO SAVEPOINT a", Effect::None),
            ("BEGIN", Effect::None),
            ("", Effect::None),
            ("SAVEPOINT a; DROP TABLE t", Effect::Other),
            ("LOCK TABLE t", Effect::Other),
            ("SET TRANSACTION READ WRITE", Effect::Other),
            ("SET CONSTRAINTS ALL IMMEDIATE", Effect::Other),
            ("/* a comment */ SELECT 1", Effect::Other),
            ("(SELECT 1) UNION (SELECT 2)", Effect::Other),
            ("COPY t FROM STDIN", Effect::Other),
            ("inserted", Effect::Other),
        ] {
            assert_eq!(Effect::of(format!("{text}\0").as_bytes()), effect, "{text}");
        }
    }

    #[test]
    fn a_prepared_statement_has_its_effect_each_time_until_it_is_closed() {
        let mut effects = Effects::default();
        let mut request = |messages: &[(u8, &[u8])]| {
            for (kind, body) in messages {
                effects.learn(*kind, body);
                effects.add(*kind, body);
            }
            effects.take()
        };
        assert_eq!(
            request(&[(b'P', b"s0\0LOCK TABLE t\0\0\0"), (b'P', b"s1\0SELECT 1\0\0\0")]),
            Effect::None
        );
        for _ in 0..2 {
            assert_eq!(request(&[(b'B', b"\0s0\0\0\0\0\0\0\0")]), Effect::Other);
            assert_eq!(request(&[(b'B', b"p\0s1\0\0\0\0\0\0\0")]), Effect::Snapshot);
        }
        assert_eq!(request(&[(b'B', b"\0s1\0\0\0"), (b'B', b"\0s0\0\0\0")]), Effect::Other);
        assert_eq!(request(&[(b'P', b"\0SHOW port\0\0\0"), (b'B', b"\0\0\0\0")]), Effect::Other);
        assert_eq!(request(&[(b'C', b"Ss0\0"), (b'P', b"s0\0DELETE FROM t\0\0\0")]), Effect::None);
        assert_eq!(request(&[(b'B', b"\0s0\0\0\0")]), Effect::Snapshot);
        assert_eq!(request(&[(b'F', b"")]), Effect::Other);
    }
}
