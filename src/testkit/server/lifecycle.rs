//! Starts, ends and pauses a server.

use super::Server;
use crate::testkit::error::{Result, TestkitError};
use crate::testkit::poll::until;
use crate::testkit::processes;
use nix::sys::signal::Signal;

impl Server {
    /// Starts the server, and returns once it accepts connections.
    ///
    /// A running server is left alone.
    ///
    /// # Errors
    ///
    /// [`TestkitError::NotStarted`] with the end of its log if it ends again.
    pub async fn start(&self) -> Result<()> {
        if !self.is_running() {
            self.spawn()?;
        }
        let waiting_for = "to accept connections";
        until(self.name(), waiting_for, || async { self.is_ready() }).await
    }

    /// Starts the server without waiting; it may refuse connections for a while.
    ///
    /// # Errors
    ///
    /// Fails if its program cannot be started.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(cluster: pointsman::testkit::Cluster) -> pointsman::testkit::Result<()> {
    /// cluster.primary().kill().await?;
    /// cluster.primary().spawn_start().await?;
    /// // … "the database system is starting up" …
    /// cluster.primary().start().await?;
    /// # Ok(()) }
    /// ```
    pub async fn spawn_start(&self) -> Result<()> {
        if self.is_running() { Ok(()) } else { self.spawn() }
    }

    /// Ends the server in order ("fast").
    ///
    /// Sessions are ended, and standbys get all WAL first.
    ///
    /// A paused server is resumed first.
    ///
    /// # Errors
    ///
    /// [`TestkitError::Timeout`] if it doesn't end, for example because a standby of it is paused.
    pub async fn stop(&self) -> Result<()> {
        self.end_by(Signal::SIGINT).await
    }

    /// Ends the server at once, without a checkpoint.
    ///
    /// It recovers from its WAL when it starts.
    ///
    /// A client sees its connection close. The server's last message is a *warning* (57P01), which drivers show as a
    /// notice and which may get lost.
    ///
    /// # Errors
    ///
    /// [`TestkitError::Timeout`] if it doesn't end.
    pub async fn stop_immediate(&self) -> Result<()> {
        self.end_by(Signal::SIGQUIT).await
    }

    /// Stops the server in order, and starts it again.
    ///
    /// # Errors
    ///
    /// As [`stop`](Self::stop) and [`start`](Self::start).
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start().await
    }

    /// Kills every process of the server (SIGKILL), as the loss of its machine does.
    ///
    /// The system closes its connections, and then refuses new ones.
    ///
    /// # Errors
    ///
    /// [`TestkitError::Timeout`] if one of the processes survives.
    pub async fn kill(&self) -> Result<()> {
        until(self.name(), "to be dead", || async {
            // The postmaster cannot replace a child that it sees dying once it is stopped.
            processes::signal(&processes::of(self.data_dir()), Signal::SIGSTOP);
            processes::signal(&processes::of(self.data_dir()), Signal::SIGKILL);
            Ok(self.is_gone())
        })
        .await
    }

    /// Stops every process of the server (SIGSTOP).
    ///
    /// The system still accepts connections for the server, but gets no answer to pass on, as with a hung disk or a
    /// frozen virtual machine.
    ///
    /// # Errors
    ///
    /// [`TestkitError::State`] if the server doesn't run.
    pub async fn pause(&self) -> Result<()> {
        self.signal_until_all(Signal::SIGSTOP, "to stand still", true).await
    }

    /// Resumes a paused server (SIGCONT).
    ///
    /// # Errors
    ///
    /// [`TestkitError::State`] if the server doesn't run.
    pub async fn resume(&self) -> Result<()> {
        self.signal_until_all(Signal::SIGCONT, "to go on", false).await
    }

    /// Signals all processes until all of them are stopped, or none is.
    async fn signal_until_all(&self, signal: Signal, waiting_for: &str, stopped: bool) -> Result<()> {
        self.needs_to_run()?;
        until(self.name(), waiting_for, || async {
            let (reached, missing): (Vec<_>, Vec<_>) = processes::of(self.data_dir())
                .into_iter()
                .partition(|process| (process.state == 'T') == stopped);
            // This includes a process that was born while the others were signalled.
            processes::signal(&missing, signal);
            Ok(missing.is_empty() && !reached.is_empty())
        })
        .await
    }

    async fn end_by(&self, signal: Signal) -> Result<()> {
        if let Some(pid) = self.postmaster() {
            processes::signal(&processes::of(self.data_dir()), Signal::SIGCONT);
            let _ = nix::sys::signal::kill(pid, signal);
        }
        until(self.name(), "to end", || async { Ok(self.is_gone()) }).await
    }

    pub(super) fn needs_to_run(&self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        Err(TestkitError::State {
            server: self.name().to_owned(),
            is: "is not running",
            remedy: "start it first",
        })
    }

    pub(super) fn postmaster(&self) -> Option<nix::unistd::Pid> {
        self.pid().and_then(|pid| i32::try_from(pid).ok()).map(nix::unistd::Pid::from_raw)
    }

    /// Returns `true` if no process of the server is left, and reaps its postmaster.
    fn is_gone(&self) -> bool {
        !self.is_running() && processes::of(self.data_dir()).is_empty()
    }

    fn spawn(&self) -> Result<()> {
        let shared = &self.inner.shared;
        let program = shared.programs.path("postgres");
        let mut command = shared.os_user.command(&program, self.data_dir());
        command.arg("-D").arg(self.data_dir());
        command.arg("-c").arg(format!("config_file={}", self.settings_path().display()));
        command.stdout(self.open_log()?).stderr(self.open_log()?);
        let child = command.spawn().map_err(|error| TestkitError::Program {
            program: program.display().to_string(),
            output: error.to_string(),
        })?;
        *self.lock(&self.inner.process) = Some(child);
        Ok(())
    }

    /// Reads the postmaster's own status file, which needs no connection.
    fn is_ready(&self) -> Result<bool> {
        let Some(pid) = self.pid() else {
            return Err(TestkitError::NotStarted { server: self.name().to_owned(), log: self.log() });
        };
        let said = std::fs::read_to_string(self.data_dir().join("postmaster.pid")).unwrap_or_default();
        let mut lines = said.lines();
        // The file of an earlier run may still be there.
        let is_current = lines.next().is_some_and(|line| line.trim() == pid.to_string());
        Ok(is_current && lines.nth(6).is_some_and(|status| status.trim() == "ready"))
    }
}
