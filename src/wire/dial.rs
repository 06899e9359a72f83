//! Opens a session from a node's settings, under one deadline.
//!
//! * `addresses`: chooses among a name's addresses
//! * `settings`: the initial settings of a session, by its kind
//! * `set_up`: applies them, and checks that the session is at the right server
//! * `check`: compares a session's answer with the monitor's (pure)
//! * `pooler`: detects a pooler that shares sessions
//! * `socket`: the byte stream to the server

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::NoTls;
use tokio_postgres::{CancelToken, Client};
use tokio_util::sync::CancellationToken;

use self::set_up::Known;
pub(crate) use self::settings::SessionKind;
use self::settings::{as_options, as_statements};
use super::driver::{Driver, drive};
use super::tls::{self, HandshakeFailed};
use super::{ProtocolTap, WireState};
use crate::config::{NodeConfig, TimeoutSettings, TlsMode};
use crate::error::ConnectError;
use crate::stats::NodeStats;
use crate::timeout::within;
use crate::wire::WireConnection;

mod addresses;
mod check;
mod pooler;
mod set_up;
mod settings;
pub(super) mod socket;

/// Opens connections to one node.
#[derive(Debug)]
pub(crate) struct Dialer {
    node: NodeConfig,
    timeouts: TimeoutSettings,
    probe_timeout: Duration,
    /// Read from the certificate files once, at the start.
    ///
    /// So a missing file is an error then and not later.
    tls: Option<tls::Connector>,
    known: Known,
    /// The address that worked last, which the node's other connections use as well.
    worked: ArcSwapOption<SocketAddr>,
}

/// The means to cancel the statement that a session is running.
#[derive(Clone)]
pub(crate) struct Cancel {
    token: CancelToken,
    /// Address of the session's server.
    ///
    /// The name may have another address by now, whose server does not know the session.
    address: Option<SocketAddr>,
}

/// A session that the server accepted.
struct Session {
    address: Option<SocketAddr>,
    client: Client,
    wire: Arc<WireState>,
    driver: Driver,
}

impl Dialer {
    /// Prepares to connect to a node.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Tls`] if a certificate file cannot be used.
    pub(crate) fn new(
        node: NodeConfig,
        timeouts: TimeoutSettings,
        probe_timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let tls = tls::connector(node.tls())?;
        Ok(Self {
            node,
            timeouts,
            probe_timeout,
            tls,
            known: Known::default(),
            worked: ArcSwapOption::empty(),
        })
    }

    /// Opens a session within one limit for socket, TLS, authentication and check.
    ///
    /// Cancelling `close` ends the session, now or later.
    ///
    /// # Cancel safety
    ///
    /// A dropped future closes its socket.
    pub(crate) async fn dial(
        &self,
        kind: SessionKind,
        limit: Duration,
        stats: Arc<NodeStats>,
        close: CancellationToken,
    ) -> Result<WireConnection, ConnectError> {
        within(limit, self.open(kind, stats, close)).await.unwrap_or(Err(ConnectError::TimedOut { limit }))
    }

    /// Connects and logs in.
    async fn begin(
        &self,
        kind: SessionKind,
        stats: Arc<NodeStats>,
        close: CancellationToken,
    ) -> Result<Session, ConnectError> {
        let (socket, address) = self.socket(None).await?;
        let wire = Arc::new(WireState::new(Arc::clone(&stats)));
        let tap = ProtocolTap::new(socket, Arc::clone(&wire));
        let mut config = self.node.postgres().clone();
        let options = as_options(&kind.settings(&self.timeouts, self.probe_timeout));
        config.options([self.node.user_options().unwrap_or_default(), &options].join(" ").trim());
        config.ssl_mode(match self.node.tls().mode {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        });
        let asked = Arc::clone(&wire);
        let failed = |error| self.begin_error(error, &asked);
        let (client, driver): (_, Driver) = match &self.tls {
            Some(tls) => {
                let (client, connection) =
                    config.connect_raw(tap, tls.to_host(self.node.host())).await.map_err(failed)?;
                (client, drive(connection, close, Arc::clone(&wire), stats, kind))
            }
            None => {
                let (client, connection) = config.connect_raw(tap, NoTls).await.map_err(failed)?;
                (client, drive(connection, close, Arc::clone(&wire), stats, kind))
            }
        };
        Ok(Session { address, client, wire, driver })
    }

    /// Classifies an error between the socket and the session.
    fn begin_error(&self, error: tokio_postgres::Error, wire: &WireState) -> ConnectError {
        if self.node.tls().mode >= TlsMode::Require && wire.is_without_tls() {
            return ConnectError::Tls("the server does not offer TLS".into());
        }
        if HandshakeFailed::of(&error) {
            return ConnectError::Tls(HandshakeFailed::cause(error));
        }
        // Without a password, the attempt ends when the server requests it, before anything is sent to the server.
        if self.node.password().is_none() && wire.is_asked_for_password() && error.code().is_none() {
            return ConnectError::PasswordMissing(error);
        }
        error.into()
    }

    /// Returns the statements that restore a session's initial state, for one request.
    ///
    /// The order matters: the search path is reset before a function is called.
    pub(crate) fn reset(&self, kind: SessionKind) -> String {
        let settings = as_statements(&kind.settings(&self.timeouts, self.probe_timeout), true);
        format!(
            "SET SESSION AUTHORIZATION DEFAULT; {settings}; CLOSE ALL; UNLISTEN *; \
             SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES"
        )
    }

    /// Returns the limit for opening a session.
    ///
    /// The node's URL overrides `timeouts.connect`.
    pub(crate) fn limit(&self) -> Duration {
        self.node.postgres().get_connect_timeout().copied().unwrap_or(self.timeouts.connect)
    }

    /// Asks the server to cancel the session's statement, which may already have ended.
    pub(crate) async fn cancel(&self, cancel: Cancel) -> Result<(), ConnectError> {
        let limit = self.limit();
        let cancelled = async {
            let (socket, _) = self.socket(cancel.address).await?;
            match &self.tls {
                Some(tls) => {
                    let tap = ProtocolTap::new(socket, Arc::new(WireState::new(Arc::default())));
                    cancel.token.cancel_query_raw(tap, tls.to_host(self.node.host())).await?;
                }
                None => cancel.token.cancel_query_raw(socket, NoTls).await?,
            }
            Ok(())
        };
        within(limit, cancelled).await.unwrap_or(Err(ConnectError::TimedOut { limit }))
    }
}
