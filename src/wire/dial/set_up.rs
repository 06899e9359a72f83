//! Sets up a new session, and checks that it is at the right server.
//!
//! The check usually shares one round trip with Diesel's first statements. Until that has worked for a node, and again
//! after a check fails, its sessions are set up step by step. This handles a role that may not read the cluster's
//! identity, a role whose transactions a standby rejects, and a pooler that drops start-up options.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diesel_async::AsyncPgConnection;
use futures_util::future::join;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::check::{self, Answer};
use super::settings::{SessionKind, as_statements};
use super::{Cancel, Dialer, Session};
use crate::error::ConnectError;
use crate::stats::NodeStats;
use crate::wire::{WireConnection, WireState};

/// The needs of a node's sessions, as the last ones showed.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By kind of session: `true` if the pipelined check was enough for the last one.
    plain: [AtomicBool; 4],
    /// Time at which a pooler was last found in session mode.
    pub(super) session_pooler: Mutex<Option<Instant>>,
}

impl Known {
    fn plain(&self, kind: SessionKind) -> &AtomicBool {
        let [read, write, probe, listen] = &self.plain;
        match kind {
            SessionKind::Read => read,
            SessionKind::Write => write,
            SessionKind::Probe => probe,
            SessionKind::Listen => listen,
        }
    }
}

/// Steps before a session in the wrong state is given up.
///
/// Each step corrects one thing.
const STEPS: u32 = 4;

impl Dialer {
    /// Opens a session, sets it up and checks it.
    pub(super) async fn open(
        &self,
        kind: SessionKind,
        stats: Arc<NodeStats>,
        close: CancellationToken,
    ) -> Result<WireConnection, ConnectError> {
        let session = self.begin(kind, Arc::clone(&stats), close.clone()).await?;
        if self.known.plain(kind).load(Ordering::Acquire) {
            let answers = check::send(&session.client, &check::query(kind, true)).await?;
            let Session { address, client, wire, driver } = session;
            let (cancel, announced) = (Cancel { token: client.cancel_token(), address }, wire.backend());
            let (conn, row) = join(AsyncPgConnection::try_from(client), check::row(answers)).await;
            let answer = row.ok().flatten().as_ref().and_then(Answer::of);
            match answer {
                Some(answer) if answer.is_set_up(kind) && answer.backend == announced => {
                    self.verify(&answer, kind, &stats)?;
                    let conn = conn.map_err(|error| set_up_failed(error, &wire))?;
                    return Ok(WireConnection::new(conn, wire, driver, cancel));
                }
                // The session ended, or never worked; another one would end the same way.
                _ if wire.is_closed() || wire.is_ending() => return Err(lost(conn.err())),
                _ => self.known.plain(kind).store(false, Ordering::Release),
            }
            drop((conn, driver));
            let session = self.begin(kind, Arc::clone(&stats), close.clone()).await?;
            return self.set_up(session, kind, stats, close).await;
        }
        self.set_up(session, kind, stats, close).await
    }

    /// Sets a session up step by step.
    async fn set_up(
        &self,
        session: Session,
        kind: SessionKind,
        stats: Arc<NodeStats>,
        close: CancellationToken,
    ) -> Result<WireConnection, ConnectError> {
        let Session { address, client, wire, driver } = session;
        let (answer, plain) = self.ask(&client, kind).await?;
        if answer.backend != wire.backend() {
            self.examine_pooler(&client, answer.backend, stats.clone(), close).await?;
        }
        let plain = plain && answer.backend == wire.backend() && answer.is_set_up(kind);
        let answer = if answer.is_set_up(kind) {
            answer
        } else {
            let settings = kind.settings(&self.timeouts, self.probe_timeout);
            client.batch_execute(&as_statements(&settings, answer.is_of_another())).await?;
            tracing::debug!(
                node = self.node.name(),
                "a session did not get its start-up options, and was set up by statements"
            );
            self.ask(&client, kind).await?.0
        };
        if kind.is_read_only() && !answer.read_only {
            return Err(ConnectError::NotReadOnly);
        }
        self.verify(&answer, kind, &stats)?;
        let cancel = Cancel { token: client.cancel_token(), address };
        let conn = AsyncPgConnection::try_from(client).await.map_err(|error| set_up_failed(error, &wire))?;
        wire.take_sqlstate();
        self.known.plain(kind).store(plain, Ordering::Release);
        Ok(WireConnection::new(conn, wire, driver, cancel))
    }

    /// Asks a session about itself; also returns `true` if the first query worked.
    async fn ask(&self, client: &Client, kind: SessionKind) -> Result<(Answer, bool), ConnectError> {
        let (mut with_identifier, mut plain) = (true, true);
        for _ in 0..STEPS {
            let answers = check::send(client, &check::query(kind, with_identifier)).await?;
            match check::row(answers).await {
                Ok(row) => {
                    let answer = row.as_ref().and_then(Answer::of);
                    let garbled = || {
                        ConnectError::Setup(diesel::ConnectionError::BadConnection(
                            "the answer to the check makes no sense".to_owned(),
                        ))
                    };
                    return Ok((answer.ok_or_else(garbled)?, plain));
                }
                Err(error) => {
                    match error.code().map(tokio_postgres::error::SqlState::code) {
                        // EXECUTE on pg_control_system() was revoked, so only the server process is compared.
                        Some("42501") if with_identifier => with_identifier = false,
                        // The role's transactions are serializable, which a standby rejects; this level is the next
                        // best.
                        Some("0A000") if plain => {
                            client
                            .batch_execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                            .await?;
                        }
                        _ => return Err(error.into()),
                    }
                }
            }
            plain = false;
        }
        Err(ConnectError::Setup(diesel::ConnectionError::BadConnection(
            "the session cannot be checked".to_owned(),
        )))
    }

    /// Compares the server with the one that the monitor saw.
    ///
    /// If they differ, the monitor probes.
    fn verify(&self, answer: &Answer, kind: SessionKind, stats: &NodeStats) -> Result<(), ConnectError> {
        let outcome = answer.verify(kind, stats.server.last().as_deref());
        if let Err(error) = &outcome {
            tracing::warn!(node = self.node.name(), %error, "a session was refused");
            stats.server.ask_for_redial();
            // Another address of the name may belong to the server.
            self.worked.store(None);
            stats.suspect();
        }
        outcome
    }
}

/// Returns the error of diesel-async's own statements, which set the session up.
fn set_up_failed(error: diesel::ConnectionError, wire: &WireState) -> ConnectError {
    match wire.is_closed() || wire.is_ending() {
        true => lost(Some(error)),
        false => ConnectError::Setup(error),
    }
}

fn lost(error: Option<diesel::ConnectionError>) -> ConnectError {
    // The server's error is that of a shutdown, for example, and no rejection of the login.
    let closed = || "the connection was closed during the check".to_owned();
    ConnectError::Setup(diesel::ConnectionError::BadConnection(
        error.map_or_else(closed, |error| error.to_string()),
    ))
}

#[cfg(test)]
mod tests {
    use diesel::result::{DatabaseErrorKind, Error};

    use super::*;
    use crate::error::Proof;

    /// A shutdown that came between the check and diesel-async's statements passed for a rejected login, so a write
    /// failed at once instead of waiting for the next primary.
    #[test]
    fn a_session_that_ends_while_it_is_set_up_is_lost_and_not_rejected() {
        let error = || {
            let message = Box::new("terminating connection due to administrator command".to_owned());
            diesel::ConnectionError::CouldntSetupConfiguration(Error::DatabaseError(
                DatabaseErrorKind::Unknown,
                message,
            ))
        };
        let wire = WireState::new(Arc::default());
        assert_eq!(set_up_failed(error(), &wire).proof(), Proof::Alive, "a statement failed");
        wire.close();
        assert_eq!(set_up_failed(error(), &wire).proof(), Proof::Silence);
    }
}
