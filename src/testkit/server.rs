//! One server of a cluster: its identity, and SQL for administration.
//!
//! - `server/lifecycle.rs`: start, stop, kill, pause.
//! - `server/replication.rs`: promote, rejoin, follow, lag.
//! - `server/access.rs`: connection slots and passwords.
//! - `server/reload.rs`: settings of a running server.

mod access;
mod lifecycle;
mod reload;
mod replication;

pub use access::ExhaustedConnections;

use super::error::{Result, file};
use super::os_user::OsUser;
use super::ports::Port;
use super::programs::Programs;
use super::proxy::Proxy;
use super::settings::{Settings, Source};
use super::sql::Session;
use super::{ADMIN, APP};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OnceCell;
use tokio_postgres::Config;

/// Lines of the log that are shown: enough for a crash and its cause.
const LOG_LINES: usize = 60;

/// One PostgreSQL server of a [`Cluster`](super::Cluster), with its faults.
///
/// It is a handle: clones are the same server, and can move into a task. Each fault returns once it is in effect, so
/// the next line of a test can rely on it.
///
/// # Examples
///
/// ```no_run
/// # async fn example(cluster: pointsman::testkit::Cluster) -> pointsman::testkit::Result<()> {
/// let replica = cluster.replica(0);
/// replica.pause().await?;
/// // … every client of this replica hangs …
/// replica.resume().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    port: Port,
    data_dir: PathBuf,
    settings: Mutex<Settings>,
    process: Mutex<Option<Child>>,
    proxy: OnceCell<Proxy>,
    shared: Arc<Shared>,
}

/// The state that the servers of a cluster share.
pub(super) struct Shared {
    pub(super) os_user: OsUser,
    pub(super) programs: Programs,
    pub(super) hba: PathBuf,
    pub(super) database: String,
    pub(super) admin_password: String,
    pub(super) app_password: Mutex<String>,
}

impl Server {
    /// Prepares a server in `data_dir`, as a standby of `primary` if there is one.
    pub(super) fn lay_out(
        name: &str,
        data_dir: PathBuf,
        settings: Settings,
        primary: Option<&Self>,
        shared: Arc<Shared>,
    ) -> Result<Self> {
        let inner = Inner {
            name: name.to_owned(),
            port: Port::reserve()?,
            data_dir,
            settings: Mutex::new(settings),
            process: Mutex::new(None),
            proxy: OnceCell::new(),
            shared,
        };
        let server = Self { inner: Arc::new(inner) };
        match primary {
            Some(primary) => server.become_standby_of(primary)?,
            None => server.write_settings()?,
        }
        Ok(server)
    }

    /// Returns the name, such as `primary` or `replica-1`, by the role at the start.
    ///
    /// It is also the server's `cluster_name`, and a standby's `application_name`.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Returns the port on 127.0.0.1, which stays reserved while the server is down.
    pub fn port(&self) -> u16 {
        self.inner.port.number()
    }

    /// Returns the URL for the program under test, with the role `app`.
    ///
    /// The role owns its database.
    ///
    /// The role is no superuser and authenticates with a password (SCRAM). The URL has the current password, also after
    /// [`change_password`](Self::change_password).
    pub fn url(&self) -> String {
        self.app_url(self.port(), &self.lock(&self.inner.shared.app_password))
    }

    /// Returns the URL of the superuser, in the database of the application.
    pub fn admin_url(&self) -> String {
        let shared = &self.inner.shared;
        let (port, database) = (self.port(), percent_encoded(&shared.database));
        format!("postgres://{ADMIN}:{}@127.0.0.1:{port}/{database}", shared.admin_password)
    }

    /// Returns the process id of the postmaster, unless it has ended.
    pub fn pid(&self) -> Option<u32> {
        let mut process = self.lock(&self.inner.process);
        // It also reaps a postmaster that has ended, which would stay as a zombie otherwise.
        let child = process.as_mut()?;
        matches!(child.try_wait(), Ok(None)).then(|| child.id())
    }

    /// Returns `true` if the postmaster lives; it may still be starting, or be paused.
    pub fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    /// Returns the data directory.
    pub fn data_dir(&self) -> &Path {
        &self.inner.data_dir
    }

    /// Returns the end of the server's log.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(cluster: pointsman::testkit::Cluster) {
    /// assert!(cluster.primary().log().contains("ready to accept connections"));
    /// # }
    /// ```
    pub fn log(&self) -> String {
        let log = std::fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Runs statements as the superuser, in the database of the application.
    ///
    /// The role `app` may use the objects that they create.
    ///
    /// # Errors
    ///
    /// Fails if the server cannot be reached, or refuses the statement. It gives up after half a minute.
    pub async fn execute(&self, sql: &str) -> Result<()> {
        self.admin_session().await?.execute(sql).await
    }

    /// Returns the first column of the first row as text, and NULL as an empty one.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute), and if the query returns no row.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(cluster: pointsman::testkit::Cluster) -> pointsman::testkit::Result<()> {
    /// assert_eq!(cluster.replica(0).query_value("SELECT pg_is_in_recovery()").await?, "t");
    /// # Ok(()) }
    /// ```
    pub async fn query_value(&self, sql: &str) -> Result<String> {
        self.admin_session().await?.value(sql).await
    }

    /// Asks the server whether it is a standby.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    pub async fn is_in_recovery(&self) -> Result<bool> {
        Ok(self.maintenance_session().await?.value("SELECT pg_is_in_recovery()").await? == "t")
    }

    /// Returns the proxy in front of the server, and starts it the first time.
    ///
    /// # Errors
    ///
    /// Fails if there is no port for it.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(cluster: pointsman::testkit::Cluster) -> pointsman::testkit::Result<()> {
    /// let url = cluster.replica(0).proxied_url().await?;
    /// cluster.replica(0).proxy().await?.stall().await?;
    /// // … clients of `url` now wait …
    /// # Ok(()) }
    /// ```
    pub async fn proxy(&self) -> Result<&Proxy> {
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port()));
        self.inner.proxy.get_or_try_init(|| Proxy::start(target)).await
    }

    /// Returns the URL for the program under test through the [`proxy`](Self::proxy).
    ///
    /// # Errors
    ///
    /// As [`proxy`](Self::proxy).
    pub async fn proxied_url(&self) -> Result<String> {
        let port = self.proxy().await?.port();
        Ok(self.app_url(port, &self.lock(&self.inner.shared.app_password)))
    }

    async fn admin_session(&self) -> Result<Session> {
        self.session_on(&self.inner.shared.database).await
    }

    /// Connects to the database that always exists, whatever a test does to its own.
    pub(super) async fn maintenance_session(&self) -> Result<Session> {
        self.session_on(ADMIN).await
    }

    /// Renames a database, which must have no connections.
    pub(super) async fn rename_database(&self, from: &str, to: &str) -> Result<()> {
        let to = to.replace('"', "\"\"");
        self.maintenance_session()
            .await?
            .execute(&format!("ALTER DATABASE \"{from}\" RENAME TO \"{to}\""))
            .await
    }

    pub(super) fn lost_its_port(&self) -> bool {
        !self.is_running() && self.inner.port.is_taken()
    }

    async fn session_on(&self, database: &str) -> Result<Session> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port()).user(ADMIN).dbname(database);
        config.password(&self.inner.shared.admin_password).application_name("pointsman-testkit");
        // A fault that ends idle sessions must not end the session that restores the setting.
        config.options("-c idle_session_timeout=0");
        Session::open(self.name(), &config).await
    }

    fn app_url(&self, port: u16, password: &str) -> String {
        let (password, database) = (percent_encoded(password), percent_encoded(&self.inner.shared.database));
        format!("postgres://{APP}:{password}@127.0.0.1:{port}/{database}")
    }

    fn log_path(&self) -> PathBuf {
        self.inner.data_dir.with_extension("log")
    }

    fn settings_path(&self) -> PathBuf {
        self.inner.data_dir.with_extension("conf")
    }

    fn write_settings(&self) -> Result<()> {
        let shared = &self.inner.shared;
        let text = self.lock(&self.inner.settings).render(self.name(), self.port(), &shared.hba);
        shared.os_user.write(&self.settings_path(), &text)
    }

    /// Configures the server as a standby of `other`, from its next start.
    fn become_standby_of(&self, other: &Self) -> Result<()> {
        self.set_source(other)?;
        let signal = self.inner.data_dir.join("standby.signal");
        self.inner.shared.os_user.write(&signal, "")
    }

    fn set_source(&self, other: &Self) -> Result<()> {
        let password = &self.inner.shared.admin_password;
        let conninfo = format!(
            "host=127.0.0.1 port={} user={ADMIN} password={password} application_name={}",
            other.port(),
            self.name()
        );
        {
            let mut settings = self.lock(&self.inner.settings);
            settings.source = Some(Source { port: other.port(), conninfo });
            settings.connected = true;
        }
        self.write_settings()
    }

    /// Takes a lock whose data stay whole when a holder panics.
    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_log(&self) -> Result<std::fs::File> {
        let path = self.log_path();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        log.map_err(file("write", &path))
    }
}

/// Percent-encodes the characters that have a meaning in a URL.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut url, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
        url
    })
}

impl fmt::Debug for Server {
    /// Leaves the passwords out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("name", &self.name())
            .field("port", &self.port())
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The watchdog has ended the process; this reaps it.
        let process = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = process {
            let _ = child.try_wait();
        }
    }
}
