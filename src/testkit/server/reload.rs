//! Changes the settings of a server while it runs.

use super::Server;
use crate::testkit::error::Result;
use crate::testkit::poll::until;
use nix::sys::signal::{Signal, kill};

/// The time at which the session's server last read its settings.
const LOADED: &str = "SELECT pg_conf_load_time()";

impl Server {
    /// Changes a line of `postgresql.conf`, and waits until new sessions have it.
    ///
    /// An open session takes it up with its next statement. If the server is not running, the change takes effect at its
    /// next start; the same holds for a setting that needs a restart.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    ///
    /// # Examples
    ///
    /// Each commit reaches the disk of the primary, and then waits for a standby that does not exist:
    ///
    /// ```no_run
    /// # async fn example(cluster: pointsman::testkit::Cluster) -> pointsman::testkit::Result<()> {
    /// cluster.primary().change_setting("synchronous_standby_names", "missing").await?;
    /// // … every commit hangs …
    /// cluster.primary().change_setting("synchronous_standby_names", "").await?;
    /// # Ok(()) }
    /// ```
    pub async fn change_setting(&self, name: &str, value: &str) -> Result<()> {
        self.lock(&self.inner.settings).own.push((name.to_owned(), value.to_owned()));
        if !self.is_running() {
            return self.write_settings();
        }
        let before = &self.maintenance_session().await?.value(LOADED).await?;
        self.write_settings()?;
        self.reload();
        until(self.name(), "to read its settings again", || async move {
            Ok(self.maintenance_session().await?.value(LOADED).await? != *before)
        })
        .await
    }

    /// Lets the server read its settings again.
    pub(super) fn reload(&self) {
        if let Some(postmaster) = self.postmaster() {
            let _ = kill(postmaster, Signal::SIGHUP);
        }
    }
}
