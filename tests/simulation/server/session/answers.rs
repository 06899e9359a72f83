//! The answers of a server about itself and its transactions.

use super::Session;
use crate::server::cluster::{IDENTIFIER, State};
use crate::server::message::{Answer, SqlError, Value, lsn_text};
use crate::server::wal::XactStatus;

impl Session {
    /// Calls a function by its object identifier.
    pub(super) fn call(&self, oid: i32, state: &State, answer: &mut Answer) {
        let node = &state.nodes[self.node];
        let value = match oid {
            0x0b24 if node.in_recovery() => {
                return answer.error(SqlError::error("55000", "recovery is in progress"));
            }
            0x0b24 => Value::Lsn(node.wal.lsn(node.wal.len())),
            0x0eed => replay_position(state, self.node),
            0x0b23 if node.in_recovery() => {
                return answer.error(SqlError::error("55000", "recovery is in progress"));
            }
            0x0b23 => Value::text(format!("{:08X}0000000000000000", node.timeline)),
            oid => panic!("the simulated server does not know the function {oid:#x}"),
        };
        let body = match value.encode(true) {
            Some(bytes) => [&u32::try_from(bytes.len()).expect("short").to_be_bytes()[..], &bytes].concat(),
            None => vec![0xff; 4],
        };
        answer.message(b'V', &body);
    }

    pub(super) fn check(&self, identifier: bool, state: &State) -> Vec<Value> {
        let node = &state.nodes[self.node];
        vec![
            Value::text(self.mark.clone()),
            Value::text(if self.read_only { "on" } else { "off" }),
            Value::Int4(self.pid),
            Value::Bool(node.in_recovery()),
            Value::Int8(node.started_at),
            Value::text("5432"),
            address(self.node),
            if identifier { Value::Int8(IDENTIFIER) } else { Value::Null },
            Value::Null,
        ]
    }

    pub(super) fn probe(&self, server: bool, state: &State) -> Vec<Value> {
        let node = &state.nodes[self.node];
        let in_recovery = node.in_recovery();
        let lsn = |lsn| Value::text(lsn_text(lsn));
        let receiver = node.standby.as_ref().filter(|standby| standby.receiver.is_some());
        let timeline = |timeline: u32| Value::Int4(timeline.cast_signed());
        let position = if in_recovery { node.replayed } else { node.flushed };
        vec![
            Value::Bool(in_recovery),
            if in_recovery { Value::Null } else { Value::text(format!("{:08X}", node.timeline)) },
            lsn(node.wal.lsn(position)),
            Value::or_null(node.received.filter(|_| in_recovery).map(lsn)),
            Value::or_null(node.recovered_to.filter(|_| !in_recovery).map(lsn)),
            Value::Bool(!in_recovery && node.received.is_some()),
            Value::or_null(receiver.and_then(|standby| standby.receiver).map(Value::Int4)),
            Value::or_null(receiver.filter(|_| state.privileged).map(|standby| timeline(standby.receives))),
            Value::Bool(node.replay_paused),
            timeline(node.control_timeline),
            if in_recovery { timeline(node.control_timeline) } else { Value::Int4(0) },
            if server { Value::Int8(node.started_at) } else { Value::Null },
            if server { Value::Int4(5432) } else { Value::Null },
            if server { address(self.node) } else { Value::Null },
            if server { Value::Int8(IDENTIFIER) } else { Value::Null },
        ]
    }

    pub(super) fn position(&self, state: &State) -> Result<Vec<Value>, SqlError> {
        let node = &state.nodes[self.node];
        if node.in_recovery() {
            return Err(SqlError::error("55000", "recovery is in progress"));
        }
        Ok(vec![
            Value::Int8(IDENTIFIER),
            Value::text(format!("{:08X}", node.timeline)),
            Value::text(lsn_text(node.wal.lsn(node.wal.len()))),
            Value::or_null(node.recovered_to.map(|lsn| Value::text(lsn_text(lsn)))),
            Value::or_null(self.xid.map(|xid| Value::text(xid.to_string()))),
        ])
    }

    pub(super) fn status(&self, xid: u64, state: &State) -> Result<Value, SqlError> {
        Ok(Value::text(match state.nodes[self.node].database.status(xid) {
            XactStatus::Committed => "committed",
            XactStatus::Aborted => "aborted",
            XactStatus::InProgress => "in progress",
            XactStatus::Future => return Err(SqlError::error("22023", "transaction ID is in the future")),
        }))
    }
}

/// Returns the position that a server has replayed; NULL if it has not recovered since its start.
pub(super) fn replay_position(state: &State, node: usize) -> Value {
    let node = &state.nodes[node];
    match node.recovered_to {
        _ if node.in_recovery() => Value::Lsn(node.wal.lsn(node.replayed)),
        Some(end) => Value::Lsn(end),
        None => Value::Null,
    }
}

fn address(node: usize) -> Value {
    Value::text(format!("10.0.0.{}", node + 1))
}
