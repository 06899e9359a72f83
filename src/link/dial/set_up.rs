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
use super::settings::{Purpose, as_statements};
use super::{Cancel, Dialer, Session};
use crate::error::ConnectError;
use crate::link::Link;
use crate::node::Vitals;

/// What the sessions of a node showed so far.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By purpose: the last session needed nothing that the pipelined check does not do.
    plain: [AtomicBool; 4],
    /// When a pooler was last found to give each session a server process of its own.
    pub(super) session_pooler: Mutex<Option<Instant>>,
}

impl Known {
    fn plain(&self, purpose: Purpose) -> &AtomicBool {
        let [read, write, probe, listen] = &self.plain;
        match purpose {
            Purpose::Read => read,
            Purpose::Write => write,
            Purpose::Probe => probe,
            Purpose::Listen => listen,
        }
    }
}

/// Steps until a session is given up that does not become what it should be; each mends one thing.
const STEPS: u32 = 4;

impl Dialer {
    /// Opens a session, sets it up and checks it.
    pub(super) async fn open(
        &self,
        purpose: Purpose,
        vitals: Arc<Vitals>,
        severed: CancellationToken,
    ) -> Result<Link, ConnectError> {
        let session = self.begin(purpose, Arc::clone(&vitals), severed.clone()).await?;
        if self.known.plain(purpose).load(Ordering::Acquire) {
            let answers = check::send(&session.client, &check::query(purpose, true)).await?;
            let Session { address, client, wire, driver } = session;
            let (cancel, announced) = (Cancel { token: client.cancel_token(), address }, wire.backend());
            let (conn, row) = join(AsyncPgConnection::try_from(client), check::row(answers)).await;
            let answer = row.ok().flatten().as_ref().and_then(Answer::of);
            match answer {
                Some(answer) if answer.is_set_up(purpose) && answer.backend == announced => {
                    self.judge(&answer, purpose, &vitals)?;
                    return Ok(Link::new(conn.map_err(ConnectError::Setup)?, wire, driver, cancel));
                }
                // The session ended, or was never well: the same would come of another one.
                _ if wire.is_closed() || wire.is_ending() => return Err(lost(conn.err())),
                _ => self.known.plain(purpose).store(false, Ordering::Release),
            }
            drop((conn, driver));
            let session = self.begin(purpose, Arc::clone(&vitals), severed.clone()).await?;
            return self.set_up(session, purpose, vitals, severed).await;
        }
        self.set_up(session, purpose, vitals, severed).await
    }

    /// Sets a session up step by step.
    async fn set_up(
        &self,
        session: Session,
        purpose: Purpose,
        vitals: Arc<Vitals>,
        severed: CancellationToken,
    ) -> Result<Link, ConnectError> {
        let Session { address, client, wire, driver } = session;
        let (answer, plain) = self.ask(&client, purpose).await?;
        if answer.backend != wire.backend() {
            self.examine_pooler(&client, answer.backend, vitals.clone(), severed).await?;
        }
        let plain = plain && answer.backend == wire.backend() && answer.is_set_up(purpose);
        let answer = if answer.is_set_up(purpose) {
            answer
        } else {
            let settings = purpose.settings(&self.timeouts, self.probe_timeout);
            client.batch_execute(&as_statements(&settings, answer.is_of_another())).await?;
            tracing::debug!(
                node = self.node.name(),
                "a session did not get its start-up options, and was set up by statements"
            );
            self.ask(&client, purpose).await?.0
        };
        if purpose.is_read_only() && !answer.read_only {
            return Err(ConnectError::NotReadOnly);
        }
        self.judge(&answer, purpose, &vitals)?;
        let cancel = Cancel { token: client.cancel_token(), address };
        let conn = AsyncPgConnection::try_from(client).await.map_err(ConnectError::Setup)?;
        wire.take_sqlstate();
        self.known.plain(purpose).store(plain, Ordering::Release);
        Ok(Link::new(conn, wire, driver, cancel))
    }

    /// Asks a session about itself; also whether it could be asked without a detour.
    async fn ask(&self, client: &Client, purpose: Purpose) -> Result<(Answer, bool), ConnectError> {
        let (mut with_identifier, mut plain) = (true, true);
        for _ in 0..STEPS {
            let answers = check::send(client, &check::query(purpose, with_identifier)).await?;
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
    fn judge(&self, answer: &Answer, purpose: Purpose, vitals: &Vitals) -> Result<(), ConnectError> {
        let outcome = answer.judge(purpose, vitals.seen.last().as_deref());
        if let Err(error) = &outcome {
            tracing::warn!(node = self.node.name(), %error, "a session was refused");
            vitals.seen.ask_for_redial();
            // Another address of the name may be the server's.
            self.worked.store(None);
            vitals.suspect();
        }
        outcome
    }
}

fn lost(error: Option<diesel::ConnectionError>) -> ConnectError {
    ConnectError::Setup(error.unwrap_or_else(|| {
        diesel::ConnectionError::BadConnection("the connection was closed during the check".to_owned())
    }))
}
