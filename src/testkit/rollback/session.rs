//! The one session at the server, and its transaction that is never committed.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_postgres::NoTls;
use tokio_postgres::config::{ChannelBinding, SslMode};

use super::lent::Lent;
use super::message::{Message, Messages, take};
use super::settings::{Settings, unset};
use super::statement::local_settings;
use crate::config::NodeConfig;
use crate::testkit::error::{Result, TestkitError};
use crate::testkit::poll::LIMIT;

/// Begins the outer transaction, whatever the defaults of a role or a database.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE NOT DEFERRABLE";

/// Disables the transaction's timeout, which only newer servers have.
const NO_LIMIT: &str = "\
    SELECT pg_catalog.set_config('transaction_timeout', '0', true) \
    WHERE pg_catalog.current_setting('transaction_timeout', true) IS NOT NULL";

/// The savepoint of the statement or transaction whose turn it is.
const SAVEPOINT: &str = "pointsman_turn";

/// The savepoint of the settings that are undone at the end of a turn.
const UNSET: &str = "pointsman_unset";

/// The constraints that are checked at a transaction's end by default.
const DEFERRED: &str = "\
    SELECT pg_catalog.string_agg(pg_catalog.format('%I.%I', n.nspname, c.conname), ', ') \
    FROM pg_catalog.pg_constraint AS c \
    JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.connamespace \
    WHERE c.condeferred";

/// Time the server may take to end the session.
const END: Duration = Duration::from_secs(5);

/// A socket of either kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// The server's address.
#[derive(Debug, Clone)]
pub(super) struct Target {
    host: String,
    port: u16,
}

impl Target {
    pub(super) async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        if self.host.starts_with('/') {
            let path = format!("{}/.s.PGSQL.{}", self.host, self.port);
            return Ok(Box::new(UnixStream::connect(path).await?));
        }
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// The session has ended.
#[derive(Debug)]
pub(super) struct Ended;

/// The reason why one of our own statements failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// The server's error.
    Refused(Message),
    Ended,
}

impl From<Ended> for Failed {
    fn from(_: Ended) -> Self {
        Self::Ended
    }
}

/// The parameters that the server announced at the login.
#[derive(Debug)]
pub(super) struct Announced {
    pub(super) parameters: Vec<(String, String)>,
    /// The process of the session, and the secret that a cancel request needs.
    pub(super) key: [u8; 8],
}

impl Announced {
    pub(super) fn process(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.key;
        [a, b, c, d]
    }
}

/// One session, in its transaction.
pub(super) struct Session {
    messages: Messages<Box<dyn Stream>>,
    status: u8,
    target: Target,
    key: [u8; 8],
    /// The client whose settings are in effect.
    client: Option<u64>,
    /// The names of these settings, and of the session's settings before the turn.
    set: Vec<String>,
    set_before: Vec<String>,
    /// The names of the settings that the turn changed.
    local: Vec<String>,
    /// The reason for its end.
    end: Option<String>,
}

impl Session {
    /// Logs in and begins the transaction.
    pub(super) async fn open(node: &NodeConfig) -> Result<(Self, Announced)> {
        let target = Target { host: node.host().to_owned(), port: node.port() };
        let timed_out = |_| TestkitError::Timeout {
            server: node.name().to_owned(),
            waiting_for: "to begin a session".to_owned(),
            limit: LIMIT,
        };
        timeout(LIMIT, Self::log_in(node, target)).await.map_err(timed_out)?
    }

    async fn log_in(node: &NodeConfig, target: Target) -> Result<(Self, Announced)> {
        let network = |source| TestkitError::Network { doing: "connect to the server", source };
        let sql = |source| TestkitError::Sql { server: node.name().to_owned(), source };
        let socket = target.connect().await.map_err(network)?;
        let lent = Lent::new(socket);
        let mut config = node.postgres().clone();
        config.ssl_mode(SslMode::Disable).channel_binding(ChannelBinding::Disable);
        config.options("-c idle_in_transaction_session_timeout=0");
        // The driver only logs in. It has read no further than the end of the login, where the server falls silent.
        drop(config.connect_raw(lent.clone(), NoTls).await.map_err(sql)?);
        let (socket, mut received) =
            lent.take_back().ok_or_else(|| network(io::Error::other("the driver kept the socket")))?;
        let mut announced = Announced { parameters: Vec::new(), key: [0; 8] };
        while let Some(message) = take(&mut received) {
            match (message.kind, message.texts().as_slice()) {
                (b'S', [name, value]) => announced.parameters.push((name.clone(), value.clone())),
                (b'K', _) => announced.key = message.body.try_into().unwrap_or_default(),
                _ => {}
            }
        }
        let key = announced.key;
        let mut session = Self {
            messages: Messages::new(socket),
            status: b'T',
            target,
            key,
            client: None,
            set: Vec::new(),
            set_before: Vec::new(),
            local: Vec::new(),
            end: None,
        };
        let begun = match session.run(BEGIN).await {
            Ok(_) => session.run(NO_LIMIT).await,
            failed => failed,
        };
        match begun {
            Ok(_) => Ok((session, announced)),
            Err(Failed::Refused(error)) => Err(network(io::Error::other(words(&error)))),
            Err(Failed::Ended) => Err(network(io::Error::other(session.end.unwrap_or_default()))),
        }
    }

    /// Returns the reason for the session's end, if it has ended.
    pub(super) fn end(&self) -> Option<&str> {
        self.end.as_deref()
    }

    /// Returns the state of the transaction, as the server last said it.
    pub(super) fn status(&self) -> u8 {
        self.status
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) async fn send(&mut self, message: &Message) -> Result<(), Ended> {
        let sent = self.messages.send(message).await;
        sent.map_err(|error| self.ended_by(error.to_string()))
    }

    /// Waits for the server's next message.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Message, Ended> {
        if self.end.is_some() {
            return Err(Ended);
        }
        let next = self.messages.next().await;
        let message = next.map_err(|error| self.ended_by(error.to_string()))?;
        if message.kind == b'Z' {
            self.status = message.body.first().copied().unwrap_or_default();
            if self.status == b'I' {
                return Err(self.ended_by("a statement ended its transaction".to_owned()));
            }
        } else if message.is_fatal() {
            self.end = Some(words(&message));
        }
        Ok(message)
    }

    fn ended_by(&mut self, cause: String) -> Ended {
        self.end.get_or_insert(cause);
        Ended
    }

    /// Runs our own statements, and returns the first column of their last row.
    async fn run(&mut self, sql: &str) -> Result<Option<String>, Failed> {
        self.send(&Message::query(sql)).await?;
        let (mut value, mut refused) = (None, None);
        loop {
            let message = self.next().await?;
            match message.kind {
                b'Z' => return refused.map_or(Ok(value), |error| Err(Failed::Refused(error))),
                b'D' => value = message.first_column(),
                b'E' => refused = Some(message),
                _ => {}
            }
        }
    }

    /// Begins a turn: sets a savepoint, and the client's settings.
    ///
    /// It skips the settings if the client also had the last turn.
    pub(super) async fn begin(
        &mut self,
        client: u64,
        settings: &Settings,
        read_only: bool,
    ) -> Result<(), Failed> {
        let mut sql = format!("SAVEPOINT {SAVEPOINT}");
        if self.client == Some(client) {
            self.set_before.clone_from(&self.set);
        } else {
            self.set_before = std::mem::replace(&mut self.set, settings.names());
            sql += &unset(&self.set_before);
            sql += &settings.as_statement();
        }
        if read_only {
            sql += "; SET LOCAL transaction_read_only = on";
        }
        let begun = self.run(&sql).await;
        self.client = Some(client);
        if let Err(Failed::Refused(_)) = begun {
            self.roll_back().await?;
        }
        begun.map(drop)
    }

    /// Releases a former client's advisory locks, as its session's end would.
    pub(super) async fn unlock_all(&mut self) -> Result<(), Failed> {
        self.run("SELECT pg_catalog.pg_advisory_unlock_all()").await.map(drop)
    }

    /// Ends a turn as a COMMIT would, with deferred checks if it could write.
    pub(super) async fn commit(&mut self, read_only: bool) -> Result<(), Failed> {
        let committed = self.check_and_release(read_only).await;
        if let Err(Failed::Refused(_)) = committed {
            self.roll_back().await?;
        }
        committed
    }

    async fn check_and_release(&mut self, read_only: bool) -> Result<(), Failed> {
        if !read_only {
            let deferred = self.run(&format!("SET CONSTRAINTS ALL IMMEDIATE; {DEFERRED}")).await?;
            if let Some(deferred) = deferred {
                self.run(&format!("SET CONSTRAINTS {deferred} DEFERRED")).await?;
            }
        }
        self.unset_local().await?;
        self.run(&format!("RELEASE SAVEPOINT {SAVEPOINT}")).await.map(drop)
    }

    /// Undoes the settings of a turn.
    ///
    /// A released savepoint leaves them to the transaction around it.
    async fn unset_local(&mut self) -> Result<(), Failed> {
        for name in std::mem::take(&mut self.local) {
            self.client = None;
            let unset = unset(std::slice::from_ref(&name));
            match self.run(&format!("SAVEPOINT {UNSET}{unset}; RELEASE {UNSET}")).await {
                // There may be no such setting, as the statement that should set it has found.
                Err(Failed::Refused(_)) => {
                    self.run(&format!("ROLLBACK TO SAVEPOINT {UNSET}; RELEASE {UNSET}")).await?;
                }
                unset => drop(unset?),
            }
        }
        Ok(())
    }

    /// Records the settings that a statement changes for the rest of its transaction.
    pub(super) fn note_settings(&mut self, statement: &str) {
        self.local.extend(local_settings(statement));
    }

    /// Ends a turn, and undoes its work.
    pub(super) async fn roll_back(&mut self) -> Result<(), Ended> {
        let sql = format!("ROLLBACK TO SAVEPOINT {SAVEPOINT}; RELEASE SAVEPOINT {SAVEPOINT}");
        // The settings of before the turn are in effect again.
        self.client = None;
        self.set.clone_from(&self.set_before);
        self.local.clear();
        // A request to cancel the previous statement may arrive as late as here.
        for _ in 0..2 {
            match self.run(&sql).await {
                Ok(_) => return Ok(()),
                Err(Failed::Refused(_)) => {}
                Err(Failed::Ended) => return Err(Ended),
            }
        }
        Err(self.ended_by("it could not be rolled back to its savepoint".to_owned()))
    }

    /// Asks the server to cancel the present statement, and waits until it has tried.
    pub(super) async fn cancel(&self) {
        let request = async {
            let mut stream = self.target.connect().await?;
            let code = 80_877_102_u32.to_be_bytes();
            stream.write_all(&[&16_u32.to_be_bytes()[..], &code, &self.key].concat()).await?;
            stream.read(&mut [0]).await
        };
        // A cancel request has no answer, and a server that is gone has nothing to cancel.
        let _ = timeout(END, request).await;
    }

    /// Ends the session, and returns once the server has rolled everything back.
    pub(super) async fn close(mut self) {
        if self.end.is_some() {
            return;
        }
        self.cancel().await;
        let ended = async {
            self.messages.send(&Message::new(b'X', [])).await?;
            loop {
                self.messages.next().await?;
            }
        };
        let _: Result<io::Result<()>, _> = timeout(END, ended).await;
    }
}

/// Returns the text of a server's error.
fn words(error: &Message) -> String {
    format!("{} (SQLSTATE {})", error.field(b'M').unwrap_or_default(), error.field(b'C').unwrap_or_default())
}
