//! The questions themselves: their messages, and the parts of the answers.

use super::Tracking;
use crate::lsn::Lsn;

/// A question to the server, until it is answered.
#[derive(Debug)]
pub(super) struct Question {
    /// The user's requests that the server has answered when it comes to the question.
    pub(super) after: u64,
    pub(super) function: Function,
    pub(super) place: Place,
    pub(super) tracking: Option<Tracking>,
}

/// The place of a question beside a user's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A separate request before the user's.
    Before,
    /// A separate request behind the user's.
    Behind,
    /// The first statement in the user's request.
    Leading,
    /// The last statement in the user's request.
    ///
    /// This is the number of statements before it that have no answer yet.
    Trailing { statements: u32 },
    /// Answered as the last statement; the end of the user's request confirms that the server was a standby.
    Unconfirmed { position: Lsn },
}

/// A function of the server, by its object identifier.
///
/// It is the same in all versions since 10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    /// `pg_current_wal_insert_lsn()`.
    ///
    /// `pg_current_wal_lsn()` is behind with `synchronous_commit = off`.
    InsertPosition,
    /// `pg_last_wal_replay_lsn()`.
    ReplayPosition,
    /// `pg_walfile_name('0/0')`.
    ///
    /// Its first eight digits are the timeline that the server writes.
    Timeline,
}

/// The state of the statement that asks within a user's request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Statement {
    /// The role may not be allowed to ask, and then the user's request would fail.
    #[default]
    Unchecked,
    /// A separate request was answered.
    Allowed,
    /// It was sent to be prepared.
    Sent,
    Prepared,
    /// It is not used in this session.
    Unsuitable,
}

/// The part of an answer to a statement within a user's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// `None` if the server has not replayed anything.
    pub(super) position: Option<Lsn>,
    /// `true` if each statement of the request has a new snapshot.
    pub(super) is_read_committed: bool,
}

/// Prepares the statement under the name `pointsman_position`.
const PARSE: &[u8] = b"P\0\0\0\x89pointsman_position\0\
    SELECT pg_catalog.pg_last_wal_replay_lsn(), pg_catalog.current_setting('transaction_isolation') /* pointsman */\0\
    \0\0";
/// Binds it to the unnamed portal, with binary values.
const BIND: &[u8] = b"B\0\0\0\x20\0pointsman_position\0\0\0\0\0\0\x01\0\x01";
/// Executes the unnamed portal.
const EXECUTE: &[u8] = b"E\0\0\0\x09\0\0\0\0\0";

impl Question {
    /// Records that the position never arrives, so no token covers it.
    pub(super) fn fail(&self) {
        if let Some(tracking) = &self.tracking {
            tracking.log.note_gap(tracking.timeline);
        }
    }
}

impl Place {
    /// Returns `true` if the question is a separate request.
    pub(super) fn is_apart(self) -> bool {
        matches!(self, Self::Before | Self::Behind)
    }

    /// Returns `true` if the user's request reads at least what the answer covers.
    pub(super) fn is_first(self) -> bool {
        matches!(self, Self::Before | Self::Leading)
    }
}

impl Function {
    /// Returns the message that calls the function, with binary values.
    ///
    /// It holds its kind, its length, the identifier of the function, the formats of the arguments, the arguments, and
    /// the format of the result.
    pub(super) const fn call(self) -> &'static [u8] {
        match self {
            Self::InsertPosition => b"F\0\0\0\x10\0\0\x0b\x24\0\x01\0\x01\0\0\0\x01",
            Self::ReplayPosition => b"F\0\0\0\x10\0\0\x0e\xed\0\x01\0\x01\0\0\0\x01",
            Self::Timeline => b"F\0\0\0\x1c\0\0\x0b\x23\0\x01\0\x01\0\x01\0\0\0\x08\0\0\0\0\0\0\0\0\0\x01",
        }
    }
}

impl Statement {
    /// Returns `true` if a user's request may hold the statement.
    pub(super) fn is_usable(self) -> bool {
        matches!(self, Self::Allowed | Self::Prepared)
    }

    /// Appends the messages that execute the statement.
    pub(super) fn append(&mut self, out: &mut Vec<u8>) {
        if *self == Self::Allowed {
            out.extend_from_slice(PARSE);
            *self = Self::Sent;
        }
        out.extend_from_slice(BIND);
        out.extend_from_slice(EXECUTE);
    }
}

impl Row {
    /// Parses a `DataRow`: the number of columns, and the length and the bytes of each.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let rest = body.strip_prefix(&[0, 2])?;
        let (position, rest) = match rest.split_first_chunk::<4>()? {
            (&[0xff, 0xff, 0xff, 0xff], rest) => (None, rest),
            (&[0, 0, 0, 8], rest) => {
                let (position, rest) = rest.split_first_chunk::<8>()?;
                (Some(Lsn::new(u64::from_be_bytes(*position))), rest)
            }
            _ => return None,
        };
        Some(Self { position, is_read_committed: rest.get(4..) == Some(b"read committed") })
    }
}

/// Returns `true` if a question may go behind a request.
///
/// `status` is the transaction status before the request.
pub(super) fn is_followed(kind: u8, body: &[u8], status: u8) -> bool {
    if matches!(status, b'T' | b'E') {
        // What was read in a transaction counts also if it is rolled back; `ROLLBACK TO SAVEPOINT` does not end it.
        let is_rollback = body.strip_suffix(b"\0").unwrap_or(body).eq_ignore_ascii_case(b"ROLLBACK");
        return kind == b'Q' && (starts_with(body, b"COMMIT") || starts_with(body, b"END") || is_rollback);
    }
    // The server reads nothing but data after `COPY … FROM STDIN`.
    let begins = [&b"BEGIN"[..], b"START TRANSACTION", b"COPY"];
    !(kind == b'Q' && begins.iter().any(|word| starts_with(body, word)))
}

fn starts_with(statement: &[u8], words: &[u8]) -> bool {
    let statement = statement.trim_ascii_start();
    statement.get(..words.len()).is_some_and(|start| start.eq_ignore_ascii_case(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_has_its_length() {
        let functions = [Function::InsertPosition, Function::ReplayPosition, Function::Timeline];
        for message in functions.map(Function::call).into_iter().chain([PARSE, BIND, EXECUTE]) {
            let length = u32::from_be_bytes(message[1..5].try_into().expect("four bytes"));
            assert_eq!(length as usize + 1, message.len(), "{message:?}");
        }
    }

    #[test]
    fn a_row_is_a_position_and_an_isolation() {
        let row = |position: &[u8], isolation: &[u8]| {
            let length = u32::try_from(isolation.len()).expect("short").to_be_bytes();
            Row::parse(&[&[0, 2], position, &length, isolation].concat())
        };
        let position = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 44];
        let of = |position, is_read_committed| Some(Row { position, is_read_committed });
        assert_eq!(row(&position, b"read committed"), of(Some(Lsn::new(300)), true));
        assert_eq!(row(&position, b"repeatable read"), of(Some(Lsn::new(300)), false));
        assert_eq!(row(&[0xff; 4], b"read committed"), of(None, true));
        assert_eq!(row(&[0, 0, 0, 1, 9], b"read committed"), None);
        assert_eq!(Row::parse(b""), None);
    }
}
