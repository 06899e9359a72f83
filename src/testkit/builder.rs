//! The settings of a cluster, and its start.

use super::cluster::Cluster;
use super::error::{Result, TestkitError, file};
use super::os_user::OsUser;
use super::poll::blocking;
use super::programs::Programs;
use super::server::{Server, Shared};
use super::settings::{HBA, Settings};
use super::template::Template;
use super::watchdog::Watchdog;
use super::{APP, APP_PASSWORD};
use futures_util::future::try_join_all;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// Attempts to start a cluster with other ports.
///
/// On some systems another process can take a port between its choice and its use.
const ATTEMPTS: usize = 3;

/// Collects the settings of a cluster, and starts it.
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> pointsman::testkit::Result<()> {
/// let cluster = pointsman::testkit::Cluster::builder()
///     .replicas(2)
///     .database("payments")
///     .setting("max_connections", "20")
///     .replica_setting("max_standby_streaming_delay", "1s")
///     .synchronous()
///     .start()
///     .await?;
/// # drop(cluster); Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing starts before `start`"]
pub struct ClusterBuilder {
    replicas: usize,
    database: String,
    settings: Vec<(String, String)>,
    replica_settings: Vec<(String, String)>,
    synchronous: bool,
    proxied: bool,
    programs: Option<PathBuf>,
}

impl ClusterBuilder {
    pub(super) fn new() -> Self {
        Self {
            replicas: 0,
            database: APP.to_owned(),
            settings: Vec::new(),
            replica_settings: Vec::new(),
            synchronous: false,
            proxied: false,
            programs: None,
        }
    }

    /// Sets the number of streaming replicas; the default is none.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Sets the name of the application's database, `app` by default.
    pub fn database(mut self, name: impl Into<String>) -> Self {
        self.database = name.into();
        self
    }

    /// Adds a line of `postgresql.conf` on all servers; a later one wins.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Adds a line of `postgresql.conf` on the replicas only.
    ///
    /// It overrides [`setting`](Self::setting).
    pub fn replica_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.replica_settings.push((name.into(), value.into()));
        self
    }

    /// Lets each commit wait for a replica, so that its promotion loses nothing.
    ///
    /// A commit waits for the first replica, and for the next one while the first is away. It hangs while no replica is
    /// connected. A promoted replica commits without waiting.
    pub fn synchronous(mut self) -> Self {
        self.synchronous = true;
        self
    }

    /// Puts a proxy in front of each server from the start.
    ///
    /// Without it, [`Server::proxy`] starts one when it is first asked for.
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Sets the folder of the server programs, such as `/usr/lib/postgresql/15/bin`.
    ///
    /// By default the search goes through `PG_BIN`, the output of `pg_config --bindir`, the folders of Debian, Fedora
    /// and Homebrew, and `PATH`.
    pub fn programs(mut self, folder: impl Into<PathBuf>) -> Self {
        self.programs = Some(folder.into());
        self
    }

    /// Starts the servers, and returns once all replicas stream.
    ///
    /// # Errors
    ///
    /// Fails if PostgreSQL is not installed, is too old or refuses one of the settings, or if the system lacks room or
    /// rights. Each error names the remedy.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the servers that it started end.
    ///
    /// # Examples
    ///
    /// ```
    /// use pointsman::testkit::Cluster;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> pointsman::testkit::Result<()> {
    /// let cluster = Cluster::builder().setting("work_mem", "5MB").start().await?;
    /// assert_eq!(cluster.primary().query_value("SHOW work_mem").await?, "5MB");
    /// # Ok(()) }
    /// ```
    pub async fn start(self) -> Result<Cluster> {
        let mut attempt = 1;
        loop {
            let this = self.clone();
            let cluster = blocking(move || this.prepare()).await?;
            match self.run(&cluster).await {
                Ok(()) => return Ok(cluster),
                Err(TestkitError::NotStarted { .. })
                    if attempt < ATTEMPTS && cluster.servers().iter().any(Server::lost_its_port) =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Lays out the folder of the cluster; nothing runs yet.
    fn prepare(&self) -> Result<Cluster> {
        let os_user = OsUser::find()?;
        let programs = Programs::find(os_user, self.programs.as_deref())?;
        let template = Template::take(os_user, &programs)?;
        let temp = std::env::temp_dir();
        // The system reports the directory of a process without symbolic links.
        let temp = temp.canonicalize().map_err(file("find", &temp))?;
        let watchdog = Watchdog::guard(os_user, &temp)?;
        let folder = watchdog.folder().to_owned();

        let names: Vec<String> = std::iter::once("primary".to_owned())
            .chain((1..=self.replicas).map(|number| format!("replica-{number}")))
            .collect();
        let places: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
        template.copy(os_user, &folder, &places)?;
        let hba = folder.join("pg_hba.conf");
        os_user.write(&hba, HBA)?;

        let shared = Arc::new(Shared {
            os_user,
            programs,
            hba,
            database: self.database.clone(),
            admin_password: template.admin_password.clone(),
            app_password: Mutex::new(APP_PASSWORD.to_owned()),
        });
        let mut servers: Vec<Server> = Vec::new();
        for (name, place) in names.iter().zip(places) {
            let settings = self.settings_of(name, &names[1..]);
            servers.push(Server::lay_out(name, place, settings, servers.first(), Arc::clone(&shared))?);
        }
        Ok(Cluster::new(servers, watchdog))
    }

    fn settings_of(&self, name: &str, replicas: &[String]) -> Settings {
        let mut own = Vec::new();
        let is_replica = replicas.iter().any(|replica| replica == name);
        if self.synchronous && !is_replica && !replicas.is_empty() {
            let names: Vec<String> = replicas.iter().map(|name| format!("\"{name}\"")).collect();
            own.push(("synchronous_standby_names".to_owned(), format!("FIRST 1 ({})", names.join(", "))));
        }
        own.extend(self.settings.iter().cloned());
        own.extend(self.replica_settings.iter().filter(|_| is_replica).cloned());
        Settings { own, ..Settings::default() }
    }

    async fn run(&self, cluster: &Cluster) -> Result<()> {
        // All at once: a replica that starts early tries again, and the copies are ready anyway.
        try_join_all(cluster.servers().iter().map(Server::start)).await?;
        try_join_all(cluster.replicas().iter().map(|replica| replica.wait_streaming(cluster.primary())))
            .await?;
        if self.database != APP {
            cluster.primary().rename_database(APP, &self.database).await?;
            cluster.wait_caught_up().await?;
        }
        if self.proxied {
            try_join_all(cluster.servers().iter().map(Server::proxy)).await?;
        }
        Ok(())
    }
}
