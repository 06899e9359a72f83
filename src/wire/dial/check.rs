//! Checks a new session before it is handed out: its server, and its settings.
//!
//! An address can lead to another server than when the node's monitor connected. A floating address moves, a name gets
//! another record, or a host is replaced. So each new session answers one query, and its answer is compared with the
//! server that the monitor saw last. A checkout does not repeat the check.

use std::pin::Pin;

use futures_util::TryStreamExt;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow, SimpleQueryStream};

use super::settings::{MARK, SessionKind};
use crate::error::ConnectError;
use crate::stats::{SeenServer, ServerIdentity};

/// The answer of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// The kind that the session is set up for, if it has its start-up options.
    mark: Option<String>,
    pub(super) read_only: bool,
    /// The process at the server, which differs from the announced one behind a pooler.
    pub(super) backend: i32,
    in_recovery: bool,
    server: Option<ServerIdentity>,
    system_identifier: Option<u64>,
}

/// Disables the server's limits for idle sessions and long transactions.
const NO_LIMIT: &str = "\
    CASE WHEN pg_catalog.current_setting('idle_session_timeout', true) IS NOT NULL \
        THEN pg_catalog.set_config('idle_session_timeout', '0', false) END, \
    CASE WHEN pg_catalog.current_setting('transaction_timeout', true) IS NOT NULL \
        THEN pg_catalog.set_config('transaction_timeout', '0', false) END";

/// Enables warnings: one reports that a COMMIT did not wait for its standby.
const WARNINGS: &str = "\
    CASE WHEN pg_catalog.current_setting('client_min_messages') OPERATOR(pg_catalog.=) 'error' \
        THEN pg_catalog.set_config('client_min_messages', 'warning', false) END";

/// Returns the query of the check.
///
/// All names are qualified, so that no `search_path` can replace them.
pub(super) fn query(kind: SessionKind, with_identifier: bool) -> String {
    let identifier = match kind {
        SessionKind::Read | SessionKind::Write | SessionKind::Listen if with_identifier => {
            "(SELECT s.system_identifier FROM pg_catalog.pg_control_system() AS s)"
        }
        _ => "NULL",
    };
    let set = match kind {
        SessionKind::Read => "NULL",
        SessionKind::Write => WARNINGS,
        SessionKind::Probe | SessionKind::Listen => NO_LIMIT,
    };
    format!(
        "SELECT pg_catalog.current_setting('{MARK}', true), \
            pg_catalog.current_setting('default_transaction_read_only'), \
            pg_catalog.pg_backend_pid(), \
            pg_catalog.pg_is_in_recovery(), \
            (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) OPERATOR(pg_catalog.*) 1000000)\
                ::pg_catalog.int8, \
            pg_catalog.current_setting('port'), \
            pg_catalog.host(pg_catalog.inet_server_addr()), \
            {identifier}, {set}"
    )
}

/// Sends a query, so that other statements can follow before its answer is awaited.
pub(super) async fn send(
    client: &Client,
    sql: &str,
) -> Result<Pin<Box<SimpleQueryStream>>, tokio_postgres::Error> {
    Ok(Box::pin(client.simple_query_raw(sql).await?))
}

/// Waits for the only row of an answer.
pub(super) async fn row(
    mut answers: Pin<Box<SimpleQueryStream>>,
) -> Result<Option<SimpleQueryRow>, tokio_postgres::Error> {
    let mut first = None;
    while let Some(message) = answers.try_next().await? {
        if let SimpleQueryMessage::Row(row) = message {
            first.get_or_insert(row);
        }
    }
    Ok(first)
}

impl Answer {
    pub(super) fn of(row: &SimpleQueryRow) -> Option<Self> {
        let text = |index| row.try_get(index).ok().flatten();
        Some(Self {
            mark: text(0).filter(|mark| !mark.is_empty()).map(str::to_owned),
            read_only: text(1)? == "on",
            backend: text(2)?.parse().ok()?,
            in_recovery: text(3)? == "t",
            server: text(4).and_then(|micros| micros.parse().ok()).map(|started_at_micros| ServerIdentity {
                started_at_micros,
                port: text(5).and_then(|port| port.parse().ok()).unwrap_or_default(),
                address: text(6).and_then(|address| address.parse().ok()),
            }),
            // The server's type is signed, and the identifier is not.
            system_identifier: text(7).and_then(|id| id.parse().ok()).map(i64::cast_unsigned),
        })
    }

    /// Returns `true` if the session got its start-up options.
    pub(super) fn is_set_up(&self, kind: SessionKind) -> bool {
        self.mark.as_deref() == Some(kind.mark()) && (self.read_only || !kind.is_read_only())
    }

    /// Returns `true` if the session has settings from an earlier client of a pooler.
    pub(super) fn is_of_another(&self) -> bool {
        self.mark.is_some()
    }

    /// Compares the server with the one that the node's monitor saw last.
    ///
    /// A probe itself finds the server, so it is compared with none. The timeline is not compared, because the process
    /// of a promoted server shows a new one at once, and the monitor decides which node may write.
    pub(super) fn verify(&self, kind: SessionKind, seen: Option<&SeenServer>) -> Result<(), ConnectError> {
        if kind == SessionKind::Probe {
            return Ok(());
        }
        if let Some(seen) = seen {
            if let (Some(found), Some(expected)) = (self.system_identifier, seen.system_identifier)
                && found != expected
            {
                return Err(ConnectError::WrongServer {
                    expected: format!("cluster {expected}"),
                    found: format!("cluster {found}"),
                });
            }
            if let Some(found) = self.server
                && !found.is_same_server(&seen.server)
            {
                let expected = describe(&seen.server);
                return Err(ConnectError::WrongServer { expected, found: describe(&found) });
            }
        }
        if matches!(kind, SessionKind::Write | SessionKind::Listen) && self.in_recovery {
            return Err(ConnectError::InRecovery);
        }
        Ok(())
    }
}

fn describe(server: &ServerIdentity) -> String {
    let started = server.started_at_micros / 1_000_000;
    let address = server.address.map_or_else(|| "local".to_owned(), |address| address.to_string());
    format!("{address} port {}, started at {started} s since 1970", server.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(started_at_micros: i64) -> ServerIdentity {
        ServerIdentity { started_at_micros, port: 5432, address: None }
    }

    fn answer() -> Answer {
        Answer {
            mark: Some("write".to_owned()),
            read_only: false,
            backend: 1,
            in_recovery: false,
            server: Some(server(5)),
            system_identifier: Some(7),
        }
    }

    fn seen() -> SeenServer {
        SeenServer { server: server(5), system_identifier: Some(7) }
    }

    #[test]
    fn the_server_that_the_monitor_saw_is_accepted() {
        answer().verify(SessionKind::Write, Some(&seen())).expect("the same");
        answer().verify(SessionKind::Write, None).expect("nothing to compare with");
        let without = SeenServer { system_identifier: None, ..seen() };
        answer().verify(SessionKind::Write, Some(&without)).expect("the identifier may not be asked for");
    }

    #[test]
    fn another_cluster_another_process_and_a_standby_are_refused() {
        for (other, kind) in [
            (Answer { system_identifier: Some(8), ..answer() }, SessionKind::Read),
            (Answer { system_identifier: None, server: Some(server(6)), ..answer() }, SessionKind::Read),
            (Answer { server: Some(server(6)), ..answer() }, SessionKind::Write),
        ] {
            let error = other.verify(kind, Some(&seen())).expect_err("another server");
            assert!(matches!(error, ConnectError::WrongServer { .. }), "{error}");
        }
        let standby = Answer { in_recovery: true, ..answer() };
        assert!(matches!(standby.verify(SessionKind::Write, None), Err(ConnectError::InRecovery)));
        standby.verify(SessionKind::Read, Some(&seen())).expect("to read");
    }

    #[test]
    fn a_session_without_its_options_is_noticed() {
        assert!(answer().is_set_up(SessionKind::Write));
        assert!(!answer().is_set_up(SessionKind::Read), "it has those of another purpose");
        let dropped = Answer { mark: None, ..answer() };
        assert!(!dropped.is_set_up(SessionKind::Write) && !dropped.is_of_another());
        let writable = Answer { mark: Some("read".to_owned()), read_only: false, ..answer() };
        assert!(!writable.is_set_up(SessionKind::Read));
    }
}
