//! The statements that a simulated server knows: those of the set, and of the operations.

use super::message::{BOOL, Column, INT4, INT8, LSN, TEXT};

/// A statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Statement {
    Empty,
    Set,
    Begin {
        read_only: bool,
    },
    Commit,
    Rollback,
    /// The check of a new session.
    Check {
        identifier: bool,
    },
    /// The probe of a monitor.
    Probe {
        server: bool,
    },
    /// The position before a COMMIT.
    Position,
    /// The status of a transaction.
    Status {
        xid: u64,
    },
    One,
    /// The question within a user's request.
    ReplayPosition,
    /// The question for the identifier and the position of the open transaction.
    Note,
    /// The question for the history that the session writes.
    Origin,
    /// A record in the log, whose commit waits for a standby.
    Emit,
    Insert,
    Entries,
}

/// The columns of a probe, in their order.
const PROBE: &[Column] = &[
    ("in_recovery", BOOL),
    ("wal_timeline", TEXT),
    ("position", TEXT),
    ("received", TEXT),
    ("recovered_to", TEXT),
    ("promoted_since_start", BOOL),
    ("receiver_pid", INT4),
    ("received_timeline", INT4),
    ("replay_paused", BOOL),
    ("checkpoint_timeline", INT4),
    ("recovery_timeline", INT4),
    ("started_at_micros", INT8),
    ("port", INT4),
    ("address", TEXT),
    ("system_identifier", INT8),
];

const CHECK: &[Column] = &[
    ("mark", TEXT),
    ("read_only", TEXT),
    ("pid", INT4),
    ("in_recovery", BOOL),
    ("started", INT8),
    ("port", TEXT),
    ("address", TEXT),
    ("identifier", INT8),
    ("set", TEXT),
];

const POSITION: &[Column] = &[
    ("system_identifier", INT8),
    ("timeline", TEXT),
    ("position", TEXT),
    ("recovered_to", TEXT),
    ("transaction_id", TEXT),
];

impl Statement {
    /// Recognises a statement by its text.
    ///
    /// # Panics
    ///
    /// If the set sends a statement that is not known here.
    pub(crate) fn parse(sql: &str) -> Self {
        let has = |part| sql.contains(part);
        match sql {
            "" => Self::Empty,
            "COMMIT" => Self::Commit,
            "ROLLBACK" => Self::Rollback,
            "SELECT 1" => Self::One,
            _ if sql.starts_with("BEGIN") => Self::Begin { read_only: has("READ ONLY") },
            _ if has("AS wal_timeline") => {
                Self::Probe { server: !has("NULL::pg_catalog.int8 AS started_at_micros") }
            }
            _ if sql.starts_with("SELECT pg_catalog.pg_current_xact_id_if_assigned(), ") => Self::Note,
            _ if has("pg_current_xact_id_if_assigned()") => Self::Position,
            _ if has("pointsman.session', true)") => Self::Check { identifier: has("pg_control_system()") },
            _ if has("/* pointsman */") && has("pg_control_system()") => Self::Origin,
            _ if has("/* pointsman */") => Self::ReplayPosition,
            _ if has("pg_logical_emit_message(true") => Self::Emit,
            _ if has("pg_xact_status(") => {
                let xid = sql.split('\'').nth(1).and_then(|xid| xid.parse().ok());
                Self::Status { xid: xid.expect("an identifier") }
            }
            _ if sql.starts_with("SET ") => Self::Set,
            _ if sql.starts_with("INSERT INTO \"ledger\" (\"id\", \"account\") VALUES ($1, $2)") => {
                Self::Insert
            }
            _ if sql.starts_with("SELECT \"ledger\".\"id\" FROM \"ledger\" WHERE") => Self::Entries,
            _ => panic!("the simulated server does not know this statement: {sql}"),
        }
    }

    /// Returns the columns of the result; none if there is no result.
    pub(crate) fn columns(self) -> &'static [Column] {
        match self {
            Self::Probe { .. } => PROBE,
            Self::Check { .. } => CHECK,
            Self::Position => POSITION,
            Self::Status { .. } => &[("status", TEXT)],
            Self::One => &[("?column?", INT4)],
            Self::ReplayPosition => &[("pg_last_wal_replay_lsn", LSN), ("current_setting", TEXT)],
            Self::Note => &[("pg_current_xact_id_if_assigned", TEXT), ("pg_current_wal_insert_lsn", LSN)],
            Self::Origin => &[("system_identifier", INT8), ("substr", TEXT), ("pg_last_wal_replay_lsn", LSN)],
            Self::Emit => &[("pg_logical_emit_message", LSN)],
            Self::Entries => &[("id", INT8)],
            _ => &[],
        }
    }

    /// Returns the types of the parameters.
    pub(crate) fn parameters(self) -> &'static [u32] {
        match self {
            Self::Insert => &[INT8, INT4],
            Self::Entries => &[INT4],
            _ => &[],
        }
    }
}
