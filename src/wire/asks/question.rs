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
    /// Answered as the last statement; the request's end confirms the standby.
    Unconfirmed { position: Lsn },
}

/// A function of the server, by its object identifier, or a statement.
///
/// The identifier is the same in all versions since 10.
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
    /// The statement that asks for the id and the position of the open transaction.
    Note,
    /// The statements that prepare [`Note`](Self::Note) and ask for the history.
    Origin,
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
const SYNC: &[u8] = b"S\0\0\0\x04";

/// Asks for the id and the position of the open transaction.
///
/// Both functions are there for every role by default, and read nothing that a transaction could change.
const NOTE: &str = "SELECT pg_catalog.pg_current_xact_id_if_assigned(), \
    pg_catalog.pg_current_wal_insert_lsn() /* pointsman */";
/// Asks for the cluster, the timeline, and the end of the last recovery.
const ORIGIN: &str = "SELECT (SELECT s.system_identifier FROM pg_catalog.pg_control_system() AS s), \
    pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8), \
    pg_catalog.pg_last_wal_replay_lsn() /* pointsman */";
/// Binds the prepared [`NOTE`] to the unnamed portal, with text values.
const BIND_NOTE: &[u8] = b"B\0\0\0\x1a\0pointsman_note\0\0\0\0\0\0\0";
/// Binds the unnamed statement to the unnamed portal, with text values.
const BIND_UNNAMED: &[u8] = b"B\0\0\0\x0c\0\0\0\0\0\0\0\0";

/// Appends the messages that execute the question for the transaction.
fn append_note(is_apart: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(BIND_NOTE);
    out.extend_from_slice(EXECUTE);
    if is_apart {
        out.extend_from_slice(SYNC);
    }
}

/// Appends the request that prepares and proves the question for the transaction.
fn append_origin(out: &mut Vec<u8>) {
    append_parse("pointsman_note", NOTE, out);
    append_note(false, out);
    append_parse("", ORIGIN, out);
    out.extend_from_slice(BIND_UNNAMED);
    out.extend_from_slice(EXECUTE);
    out.extend_from_slice(SYNC);
}

/// Appends the message that prepares a statement without parameters.
fn append_parse(name: &str, sql: &str, out: &mut Vec<u8>) {
    let body = [name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"].concat();
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    out.push(b'P');
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&body);
}

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
    /// Returns `true` if the question is for the open transaction.
    pub(super) fn is_note(self) -> bool {
        matches!(self, Self::Note | Self::Origin)
    }

    /// Appends the messages that ask.
    ///
    /// It holds its kind, its length, the identifier of the function, the formats of the arguments, the arguments, and
    /// the format of the result.
    pub(super) fn append(self, is_apart: bool, out: &mut Vec<u8>) {
        let call: &[u8] = match self {
            Self::Note => return append_note(is_apart, out),
            Self::Origin => return append_origin(out),
            Self::InsertPosition => b"F\0\0\0\x10\0\0\x0b\x24\0\x01\0\x01\0\0\0\x01",
            Self::ReplayPosition => b"F\0\0\0\x10\0\0\x0e\xed\0\x01\0\x01\0\0\0\x01",
            Self::Timeline => b"F\0\0\0\x1c\0\0\x0b\x23\0\x01\0\x01\0\x01\0\0\0\x08\0\0\0\0\0\0\0\0\0\x01",
        };
        out.extend_from_slice(call);
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

/// Returns the columns of a `DataRow`, `None` for NULL.
pub(super) fn columns(body: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut columns = Vec::with_capacity(2);
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        let (value, after) = match usize::try_from(length) {
            Ok(length) => after.split_at_checked(length).map(|(value, after)| (Some(value), after))?,
            Err(_) => (None, after),
        };
        columns.push(value);
        rest = after;
    }
    Some(columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frames::Frames;

    #[test]
    fn each_message_has_its_length() {
        let kinds = |bytes: &[u8]| {
            let (mut frames, mut kinds) = (Frames::new(false), String::new());
            frames.feed(bytes, |kind, _| kinds.push(char::from(kind)));
            assert!(frames.is_between_messages(), "{bytes:?}");
            kinds
        };
        let of = |function: Function, is_apart| {
            let mut out = Vec::new();
            function.append(is_apart, &mut out);
            kinds(&out)
        };
        for function in [Function::InsertPosition, Function::ReplayPosition, Function::Timeline] {
            assert_eq!(of(function, true), "F");
        }
        assert_eq!(
            (of(Function::Note, false), of(Function::Note, true)),
            ("BE".to_owned(), "BES".to_owned())
        );
        assert_eq!(of(Function::Origin, true), "PBEPBES");
        assert_eq!(kinds(&[PARSE, BIND, EXECUTE].concat()), "PBE");
    }

    #[test]
    fn a_row_is_cut_into_its_columns() {
        let row = b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(columns(row), Some(vec![Some(&b"ab"[..]), None, Some(b"")]));
        for end in 0..row.len() {
            assert_eq!(columns(&row[..end]), None, "{end}");
        }
        assert_eq!(columns(b"\0\0"), Some(Vec::new()));
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
