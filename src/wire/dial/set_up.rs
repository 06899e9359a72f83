//! From a session that the server let begin to one that is set up, and known to be at the right server.
//!
//! Usually everything is well, and the check shares one round trip with the first statements of Diesel. Until that is known
//! of a node, and again once a check shows something else, its sessions are set up step by step: a role that may not ask for
//! the cluster's identity, a role whose transactions a standby refuses, a pooler that drops start-up options.

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
use crate::wire::WireConnection;

/// What the sessions of a node showed so far.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By purpose: the last session needed nothing that the pipelined check does not do.
    plain: [AtomicBool; 4],
    /// When a pooler was last found to give each session a server process of its own.
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

/// Steps until a session is given up that does not become what it should be; each mends one thing.
const STEPS: u32 = 4;

impl Dialer {
    /// Opens a session, sets it up and checks it.
    pub(super) async fn open(
        &self,
        kind: SessionKind,
        stats: Arc<NodeStats>,
        severed: CancellationToken,
    ) -> Result<WireConnection, ConnectError> {
        let session = self.begin(kind, Arc::clone(&stats), severed.clone()).await?;
        if self.known.plain(kind).load(Ordering::Acquire) {
            let answers = check::send(&session.client, &check::query(kind, true)).await?;
            let Session { address, client, wire, driver } = session;
            let (cancel, announced) = (Cancel { token: client.cancel_token(), address }, wire.backend());
            let (conn, row) = join(AsyncPgConnection::try_from(client), check::row(answers)).await;
            let answer = row.ok().flatten().as_ref().and_then(Answer::of);
            match answer {
                Some(answer) if answer.is_set_up(kind) && answer.backend == announced => {
                    self.verify(&answer, kind, &stats)?;
                    return Ok(WireConnection::new(conn.map_err(ConnectError::Setup)?, wire, driver, cancel));
                }
                // The session ended, or was never well: the same would come of another one.
                _ if wire.is_closed() || wire.is_ending() => return Err(lost(conn.err())),
                _ => self.known.plain(kind).store(false, Ordering::Release),
            }
            drop((conn, driver));
            let session = self.begin(kind, Arc::clone(&stats), severed.clone()).await?;
            return self.set_up(session, kind, stats, severed).await;
        }
        self.set_up(session, kind, stats, severed).await
    }

    /// Sets a session up step by step.
    async fn set_up(
        &self,
        session: Session,
        kind: SessionKind,
        stats: Arc<NodeStats>,
        severed: CancellationToken,
    ) -> Result<WireConnection, ConnectError> {
        let Session { address, client, wire, driver } = session;
        let (answer, plain) = self.ask(&client, kind).await?;
        if answer.backend != wire.backend() {
            self.examine_pooler(&client, answer.backend, stats.clone(), severed).await?;
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
        let conn = AsyncPgConnection::try_from(client).await.map_err(ConnectError::Setup)?;
        wire.take_sqlstate();
        self.known.plain(kind).store(plain, Ordering::Release);
        Ok(WireConnection::new(conn, wire, driver, cancel))
    }

    /// Asks a session about itself; also whether it could be asked without a detour.
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
                        // EXECUTE on pg_control_system() was revoked: the server process alone is compared.
                        Some("42501") if with_identifier => with_identifier = false,
                        // The role's transactions are serializable, and a standby refuses those: this is the next best.
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

    /// Compares the server with the one that the monitor saw, and has the monitor look again if it is another.
    fn verify(&self, answer: &Answer, kind: SessionKind, stats: &NodeStats) -> Result<(), ConnectError> {
        let outcome = answer.verify(kind, stats.server.last().as_deref());
        if let Err(error) = &outcome {
            tracing::warn!(node = self.node.name(), %error, "a session was refused");
            stats.server.ask_for_redial();
            // Another address of the name may be the server's.
            self.worked.store(None);
            stats.suspect();
        }
        outcome
    }
}

fn lost(error: Option<diesel::ConnectionError>) -> ConnectError {
    ConnectError::Setup(error.unwrap_or_else(|| {
        diesel::ConnectionError::BadConnection("the connection was closed during the check".to_owned())
    }))
}
