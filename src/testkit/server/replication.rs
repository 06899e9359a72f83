//! Changes a server's role, its source and its lag.

use super::Server;
use crate::testkit::ADMIN;
use crate::testkit::error::{Result, TestkitError, file};
use crate::testkit::poll::{blocking, until, until_every};
use nix::sys::signal::{Signal, kill};
use std::time::Duration;
use tokio::time::Instant;

/// The port that a standby streams from, empty if it doesn't.
const SOURCE: &str =
    "SELECT coalesce((SELECT sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming')::text, '')";

/// Time between two checks for the end of a promotion.
///
/// It is short because a late instant would make the time to the first write look shorter.
const PROMOTION_INTERVAL: Duration = Duration::from_millis(1);

impl Server {
    /// Promotes a standby; returns the instant at which it took writes, once it does.
    ///
    /// The old primary goes on, and takes writes too, unless the test has ended it.
    ///
    /// # Errors
    ///
    /// [`TestkitError::Timeout`] if the server doesn't leave recovery.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(cluster: pointsman::testkit::Cluster, set: pointsman::ReplicaSet) -> Result<(), Box<dyn std::error::Error>> {
    /// cluster.primary().kill().await?;
    /// let promoted = cluster.replica(0).promote().await?;
    /// let conn = set.write().await?;
    /// println!("writes go on after {:?}", promoted.elapsed());
    /// # drop(conn); Ok(()) }
    /// ```
    pub async fn promote(&self) -> Result<Instant> {
        self.needs_to_run()?;
        // The connection is there before: it survives the promotion and sees it at once.
        let session = &self.maintenance_session().await?;
        // The server removes the file as soon as any signal makes it look, so the file appears with its owner.
        self.inner.shared.os_user.write(&self.data_dir().join("promote"), "")?;
        if let Some(postmaster) = self.postmaster() {
            let _ = kill(postmaster, Signal::SIGUSR1);
        }
        let query = "SELECT pg_is_in_recovery()";
        until_every(PROMOTION_INTERVAL, self.name(), "to be promoted", || async move {
            Ok(session.value(query).await? == "f")
        })
        .await?;
        Ok(Instant::now())
    }

    /// Turns an old primary into a standby of the new one, and waits until it streams.
    ///
    /// If it runs, it is stopped. It is rewound (`pg_rewind`) to where the histories diverge, and started. Changes that
    /// only it had are lost, as in production.
    ///
    /// # Errors
    ///
    /// [`TestkitError::Program`] with the output of `pg_rewind` if the two have too little in common.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(cluster: pointsman::testkit::Cluster) -> pointsman::testkit::Result<()> {
    /// cluster.primary().kill().await?;
    /// cluster.replica(0).promote().await?;
    /// cluster.primary().rejoin(cluster.replica(0)).await?;
    /// assert!(cluster.primary().is_in_recovery().await?);
    /// # Ok(()) }
    /// ```
    pub async fn rejoin(&self, new_primary: &Self) -> Result<()> {
        self.stop().await?;
        // `pg_rewind` reads the timeline from the control file, which shows a promotion only after a checkpoint.
        // Before, it reports that there is nothing to do.
        new_primary.execute("CHECKPOINT").await?;
        let shared = &self.inner.shared;
        let source = format!(
            "host=127.0.0.1 port={} user={ADMIN} dbname={ADMIN} password={}",
            new_primary.port(),
            shared.admin_password
        );
        let (os_user, program) = (shared.os_user, shared.programs.path("pg_rewind"));
        let place = self.data_dir().to_owned();
        blocking(move || {
            let target = place.display().to_string();
            let arguments = ["--no-sync", "--target-pgdata", &target, "--source-server", &source];
            os_user.run(&program, &place, &arguments)
        })
        .await?;
        self.become_standby_of(new_primary)?;
        self.start().await?;
        self.wait_streaming(new_primary).await
    }

    /// Copies another server again, as its standby, and returns once it streams.
    ///
    /// If it runs, it is stopped. Its data are removed, and `pg_basebackup` fetches the other server's. This restores a
    /// server that [`rejoin`](Self::rejoin) cannot rewind: after both standbys were promoted, the two have different
    /// histories by the same name.
    ///
    /// # Errors
    ///
    /// [`TestkitError::Program`] with the output of `pg_basebackup`.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(cluster: pointsman::testkit::Cluster) -> pointsman::testkit::Result<()> {
    /// cluster.primary().kill().await?;
    /// cluster.replica(0).promote().await?;
    /// cluster.replica(1).promote().await?;
    /// cluster.replica(1).rebuild(cluster.replica(0)).await?;
    /// # Ok(()) }
    /// ```
    pub async fn rebuild(&self, source: &Self) -> Result<()> {
        self.stop().await?;
        let shared = &self.inner.shared;
        let conninfo = format!(
            "host=127.0.0.1 port={} user={ADMIN} dbname={ADMIN} password={}",
            source.port(),
            shared.admin_password
        );
        let (os_user, program) = (shared.os_user, shared.programs.path("pg_basebackup"));
        let place = self.data_dir().to_owned();
        blocking(move || {
            // The folder itself stays: it belongs to the server's user, its parent may not.
            for entry in std::fs::read_dir(&place).map_err(file("read", &place))? {
                let path = entry.map_err(file("read", &place))?.path();
                let is_folder = path.is_dir() && !path.is_symlink();
                let removed =
                    if is_folder { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
                removed.map_err(file("remove", &path))?;
            }
            let target = place.display().to_string();
            let arguments = ["--no-sync", "--checkpoint=fast", "--pgdata", &target, "--dbname", &conninfo];
            os_user.run(&program, &place, &arguments)
        })
        .await?;
        self.become_standby_of(source)?;
        self.start().await?;
        self.wait_streaming(source).await
    }

    /// Points a standby at another server, and returns once it streams from there.
    ///
    /// The other one may be a standby itself. If the standby is not running, the change takes effect at its next
    /// start.
    ///
    /// # Errors
    ///
    /// [`TestkitError::Timeout`] if it gets no stream, for example because it has replayed WAL that the other one never
    /// had. Then [`rejoin`](Self::rejoin) is needed.
    pub async fn follow(&self, other: &Self) -> Result<()> {
        self.set_source(other)?;
        if !self.is_running() {
            return Ok(());
        }
        self.reload();
        self.wait_streaming(other).await
    }

    /// Pauses the replay of a standby: its data stand still while the stream goes on.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute); a server that is no standby refuses.
    pub async fn pause_replay(&self) -> Result<()> {
        let session = &self.maintenance_session().await?;
        session.execute("SELECT pg_wal_replay_pause()").await?;
        let query = "SELECT pg_get_wal_replay_pause_state()";
        until(
            self.name(),
            "to pause its replay",
            || async move { Ok(session.value(query).await? == "paused") },
        )
        .await
    }

    /// Resumes the replay of a standby.
    ///
    /// # Errors
    ///
    /// As [`pause_replay`](Self::pause_replay).
    pub async fn resume_replay(&self) -> Result<()> {
        let session = &self.maintenance_session().await?;
        session.execute("SELECT pg_wal_replay_resume()").await?;
        let query = "SELECT pg_get_wal_replay_pause_state()";
        let waiting_for = "to go on with its replay";
        until(self.name(), waiting_for, || async move { Ok(session.value(query).await? == "not paused") })
            .await
    }

    /// Delays the replay of each commit by this time; zero ends the delay.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    pub async fn set_replay_delay(&self, delay: Duration) -> Result<()> {
        self.lock(&self.inner.settings).replay_delay = delay;
        self.write_settings()?;
        self.reload();
        let wanted = &delay.as_millis().to_string();
        let query = "SELECT setting FROM pg_settings WHERE name = 'recovery_min_apply_delay'";
        // A separate session for each check, because a session takes up new settings when it is idle.
        until(self.name(), "to take up its replay delay", || async move {
            Ok(self.maintenance_session().await?.value(query).await? == *wanted)
        })
        .await
    }

    /// Disconnects a standby from its primary, so that it gets no more data.
    ///
    /// It serves the data that it has.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    pub async fn disconnect_from_primary(&self) -> Result<()> {
        self.lock(&self.inner.settings).connected = false;
        self.write_settings()?;
        self.reload();
        let session = &self.maintenance_session().await?;
        let query = "SELECT count(*) FROM pg_stat_wal_receiver";
        until(self.name(), "to lose its primary", || async move { Ok(session.value(query).await? == "0") })
            .await
    }

    /// Reconnects a standby to its primary, and returns once it streams.
    ///
    /// # Errors
    ///
    /// [`TestkitError::State`] for a server that never was a standby.
    pub async fn reconnect_to_primary(&self) -> Result<()> {
        let port = {
            let mut settings = self.lock(&self.inner.settings);
            settings.connected = true;
            settings.source.as_ref().map(|source| source.port)
        };
        let Some(port) = port else {
            return Err(TestkitError::State {
                server: self.name().to_owned(),
                is: "has no primary to go back to",
                remedy: "give it one with `rejoin`",
            });
        };
        self.write_settings()?;
        self.reload();
        self.wait_streaming_from(port).await
    }

    pub(in crate::testkit) async fn wait_streaming(&self, source: &Self) -> Result<()> {
        self.wait_streaming_from(source.port()).await
    }

    async fn wait_streaming_from(&self, port: u16) -> Result<()> {
        let session = &self.maintenance_session().await?;
        let wanted = &port.to_string();
        let waiting_for = "to stream from its primary";
        until(self.name(), waiting_for, || async move { Ok(session.value(SOURCE).await? == *wanted) }).await
    }
}
