//! One attempt to open a session at one node.

use std::fmt;
use std::io;
use std::time::Duration;

use super::{Proof, SqlState};

/// The reason why a session could not be opened.
///
/// The kinds differ in their evidence about the server. A closed port means that the server is down. A server that
/// returns [`TooManyConnections`](Self::TooManyConnections) or [`LoginRejected`](Self::LoginRejected) is alive, and its
/// sessions continue. A name that does not resolve, or a program without a free descriptor, is no evidence about the
/// server.
///
/// Some variants hold the driver's [`tokio_postgres::Error`], because it has what the server said (the message, a hint)
/// and its chain of causes. diesel-async has the same type in its public interface, so a wrapper would hide details and
/// would not free a program from that version. To decide, use the variant or its [`SqlState`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The host's name has no address.
    ///
    /// The name is misspelt or was removed, or the name service does not answer. That is no evidence about the server.
    #[error(
        "its host name does not resolve: correct it in the URL, or look at this machine's DNS and /etc/hosts"
    )]
    NameNotResolved(#[source] io::Error),
    /// No TCP connection (or no socket file).
    ///
    /// The host is down, the port is closed, or this program is out of descriptors.
    #[error("no connection to its port: {}", remedy(.0))]
    Unreachable(#[source] io::Error),
    /// The server did not complete socket, TLS and authentication in time.
    #[error("no session within {limit:?}: the server hangs or is far away (`timeouts.connect`)")]
    TimedOut {
        /// Time waited.
        limit: Duration,
    },
    /// TLS could not be set up.
    #[error("TLS failed: check `sslmode`, `sslrootcert` and the server's certificate")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server rejected the user, the password or the database.
    ///
    /// SQLSTATE class 28, 3D000, 42501 (no right to connect) and 55000 (the database allows no connections).
    #[error(
        "the server refused the login (SQLSTATE {sqlstate}): check user, password, pg_hba.conf, and the database, \
         its CONNECT privilege and ALLOW_CONNECTIONS"
    )]
    LoginRejected {
        /// The server's SQLSTATE.
        sqlstate: SqlState,
        /// The server's error.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The server asks for a password, and the URL has none.
    #[error(
        "the server asks for a password, and none is configured: put it into the URL, or into a file that \
         `password_file` names; PGPASSWORD and ~/.pgpass are not read"
    )]
    PasswordMissing(#[source] tokio_postgres::Error),
    /// The server has no connection slot left (53300).
    #[error(
        "the server has no connection slot left (SQLSTATE 53300): lower `pool.max_size`, or raise its max_connections"
    )]
    TooManyConnections(#[source] tokio_postgres::Error),
    /// The server is starting up or shutting down (57P01 to 57P03).
    #[error(
        "the server takes no connections yet (SQLSTATE 57P01 to 57P03): it is starting up, shutting down or recovering"
    )]
    NotReady(#[source] tokio_postgres::Error),
    /// A new session reached another server than the node's monitor saw last.
    ///
    /// The address leads to another server now, or the server was restarted. The monitor connects again to find out,
    /// and no session is handed out before.
    #[error(
        "the address leads to another server ({found}) than its monitor saw last ({expected}): if it is a floating \
         one, configure the addresses of the servers themselves"
    )]
    WrongServer {
        /// The cluster or the server that the monitor saw.
        expected: String,
        /// The cluster or server that the session reached.
        found: String,
    },
    /// A new write session reached a server in recovery, such as a standby.
    #[error("the address leads to a server in recovery, which cannot write")]
    InRecovery,
    /// The read session can write at the server, and the setting cannot be changed.
    #[error(
        "the session stays writable: something between here and the server drops the start-up options and resets \
         `default_transaction_read_only`; connect to the server directly"
    )]
    NotReadOnly,
    /// A pooler in transaction or statement mode shares sessions between clients.
    #[error(
        "a pooler in transaction or statement mode stands before the server, so no session keeps its state: connect \
         to the server directly, or set `pool_mode = session`"
    )]
    SharedByPooler,
    /// Any other error of the server or the protocol, with its own message.
    #[error("the server did not let the session begin: {}", Words(.0))]
    Protocol(tokio_postgres::Error),
    /// The session's first statements failed.
    #[error("the session could not be set up: {0}")]
    Setup(diesel::ConnectionError),
    /// The set cancelled the attempt.
    ///
    /// It is closing, or the node is known to be down.
    #[error("the attempt was given up")]
    Abandoned,
}

/// The server's message with its code, or else the driver's with its causes.
struct Words<'e>(&'e tokio_postgres::Error);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(error) = self.0.as_db_error() {
            return write!(f, "{} (SQLSTATE {})", error.message(), error.code().code());
        }
        write!(f, "{}", self.0)?;
        let mut cause = std::error::Error::source(self.0);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl ConnectError {
    /// Returns `true` if the error proves the server alive.
    ///
    /// Such an error does not mark the node down.
    ///
    /// ```
    /// use pointsman::ConnectError;
    /// let refused = ConnectError::Unreachable(std::io::ErrorKind::ConnectionRefused.into());
    /// assert!(!refused.proves_alive());
    /// ```
    pub fn proves_alive(&self) -> bool {
        self.proof() == Proof::Alive
    }
}

/// Returns the advice for an error of the socket.
fn remedy(error: &io::Error) -> &'static str {
    match super::proof::of_socket(error) {
        Proof::NotAsked => {
            "this machine has no descriptor, port or buffer left, or forbids it (see `ulimit -n`)"
        }
        _ => "is the server running, and is the address right?",
    }
}

impl ConnectError {
    /// Returns `true` if a server that is up rejected the login.
    ///
    /// Waiting for a failover cannot help then.
    ///
    /// A session that reached another server, or a standby, points to a failover or restart that the monitor has not
    /// seen yet.
    pub(crate) fn is_refusal(&self) -> bool {
        self.proves_alive()
            && !matches!(self, Self::NotReady(_) | Self::WrongServer { .. } | Self::InRecovery)
    }
}

impl From<tokio_postgres::Error> for ConnectError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(code) = error.code().and_then(|code| <[u8; 5]>::try_from(code.code().as_bytes()).ok())
        else {
            return Self::Protocol(error);
        };
        match SqlState::new(code) {
            SqlState::TOO_MANY_CONNECTIONS => Self::TooManyConnections(error),
            code if code.ends_session() => Self::NotReady(error),
            sqlstate if sqlstate.class() == "28" || matches!(&code, b"3D000" | b"42501" | b"55000") => {
                Self::LoginRejected { sqlstate, source: error }
            }
            _ => Self::Protocol(error),
        }
    }
}
