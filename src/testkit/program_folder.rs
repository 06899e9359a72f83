//! Other programs beside the servers, which end with the test as well.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, PoisonError};

use nix::sys::signal::Signal;

use super::error::{Result, TestkitError, file};
use super::os_user::OsUser;
use super::poll::{blocking, until};
use super::ports::Port;
use super::processes;
use super::programs::Programs;
use super::watchdog::{FOLDER_VARIABLE, Watchdog};

/// A folder for other programs: a pooler, a proxy, a high-availability tool.
///
/// Its programs run as the user that runs the servers of a [`Cluster`](super::Cluster), and never as root. Each runs in
/// a *place*, a folder inside this one. All processes of a place, also those that a program started, are killed, paused
/// and resumed together. When this is dropped, or the test panics, exits or is killed, every process ends and the
/// folder is removed. Linux only.
///
/// ```
/// use pointsman::testkit::ProgramFolder;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> pointsman::testkit::Result<()> {
/// let folder = ProgramFolder::create().await?;
/// folder.start("tool", "/bin/sh", &["-c", "sleep 60 & wait"])?;
/// folder.pause("tool").await?;
/// folder.resume("tool").await?;
/// folder.kill("tool").await?;
/// assert!(!folder.is_running("tool"));
/// # Ok(()) }
/// ```
pub struct ProgramFolder {
    // Dropped before the children, which have ended then and are reaped.
    watchdog: Watchdog,
    children: Children,
    os_user: OsUser,
    programs: Programs,
    ports: Mutex<Vec<Port>>,
}

/// The programs that were started, to reap them.
#[derive(Debug, Default)]
struct Children(Mutex<Vec<Child>>);

impl ProgramFolder {
    /// Creates the folder, among the temporary files.
    ///
    /// # Errors
    ///
    /// Fails if PostgreSQL is not installed or is too old, or if the system lacks room or rights.
    pub async fn create() -> Result<Self> {
        blocking(|| {
            let os_user = OsUser::find()?;
            let programs = Programs::find(os_user, None)?;
            let temp = std::env::temp_dir();
            // The system reports the directory of a process without symbolic links.
            let temp = temp.canonicalize().map_err(file("find", &temp))?;
            let watchdog = Watchdog::guard(os_user, &temp)?;
            let (children, ports) = (Children::default(), Mutex::default());
            Ok(Self { watchdog, children, os_user, programs, ports })
        })
        .await
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        self.watchdog.folder()
    }

    /// Returns the folder of PostgreSQL's server programs.
    pub fn server_programs(&self) -> PathBuf {
        self.programs.path("")
    }

    /// Reserves a port of 127.0.0.1 for a program that sets `SO_REUSEADDR`.
    ///
    /// # Errors
    ///
    /// [`TestkitError::Network`] if there is none.
    pub fn reserve_port(&self) -> Result<u16> {
        let port = Port::reserve()?;
        let number = port.number();
        lock(&self.ports).push(port);
        Ok(number)
    }

    /// Writes a file of the programs' user, and returns its path.
    ///
    /// # Errors
    ///
    /// [`TestkitError::File`] if it cannot be written.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        self.os_user.write(&path, content)?;
        Ok(path)
    }

    /// Starts a program in a place; its output goes to a file beside the place.
    ///
    /// Variables such as `PGPORT` are removed from its environment, and its home is this folder.
    ///
    /// # Errors
    ///
    /// [`TestkitError::Program`] if it cannot be started.
    pub fn start(&self, place: &str, program: impl AsRef<Path>, arguments: &[&str]) -> Result<()> {
        let (program, folder) = (program.as_ref(), self.place(place));
        std::fs::create_dir_all(&folder).map_err(file("create", &folder))?;
        self.os_user.own(&folder)?;
        let mut command = self.os_user.command(program, &folder);
        command.args(arguments).env(FOLDER_VARIABLE, self.path()).env("HOME", self.path());
        command.stdout(self.open_log(place)?).stderr(self.open_log(place)?);
        let child = command.spawn().map_err(|error| TestkitError::Program {
            program: program.display().to_string(),
            output: error.to_string(),
        })?;
        lock(&self.children.0).push(child);
        Ok(())
    }

    /// Kills all processes of a place (SIGKILL), as the loss of its machine does.
    ///
    /// # Errors
    ///
    /// [`TestkitError::Timeout`] if one of them survives.
    pub async fn kill(&self, place: &str) -> Result<()> {
        until(place, "to be dead", || async {
            // A stopped program cannot replace another that it sees dying.
            processes::signal(&self.processes(place), Signal::SIGSTOP);
            processes::signal(&self.processes(place), Signal::SIGKILL);
            Ok(!self.is_running(place))
        })
        .await
    }

    /// Stops all processes of a place (SIGSTOP), as a frozen virtual machine does.
    ///
    /// # Errors
    ///
    /// [`TestkitError::Timeout`] if there is none.
    pub async fn pause(&self, place: &str) -> Result<()> {
        self.signal_until_all(place, Signal::SIGSTOP, "to stand still", true).await
    }

    /// Resumes all processes of a place (SIGCONT).
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause).
    pub async fn resume(&self, place: &str) -> Result<()> {
        self.signal_until_all(place, Signal::SIGCONT, "to go on", false).await
    }

    /// Returns `true` if a process of a place lives; it may be paused.
    pub fn is_running(&self, place: &str) -> bool {
        // It also reaps what has ended.
        lock(&self.children.0).retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        !self.processes(place).is_empty()
    }

    /// Returns the output of a place's programs.
    pub fn log(&self, place: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_path(place)).unwrap_or_default()).into_owned()
    }

    /// Signals all processes until all of them are stopped, or none is.
    async fn signal_until_all(
        &self,
        place: &str,
        signal: Signal,
        waiting_for: &str,
        stopped: bool,
    ) -> Result<()> {
        until(place, waiting_for, || async {
            let (reached, missing): (Vec<_>, Vec<_>) =
                self.processes(place).into_iter().partition(|process| (process.state == 'T') == stopped);
            processes::signal(&missing, signal);
            Ok(missing.is_empty() && !reached.is_empty())
        })
        .await
    }

    fn processes(&self, place: &str) -> Vec<processes::Process> {
        processes::within(&self.place(place))
    }

    fn place(&self, place: &str) -> PathBuf {
        self.path().join(place)
    }

    fn log_path(&self, place: &str) -> PathBuf {
        self.place(place).with_extension("log")
    }

    fn open_log(&self, place: &str) -> Result<std::fs::File> {
        let path = self.log_path(place);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        log.map_err(file("write", &path))
    }
}

impl fmt::Debug for ProgramFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgramFolder").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in self.0.get_mut().unwrap_or_else(PoisonError::into_inner) {
            let _ = child.try_wait();
        }
    }
}

/// Takes a lock whose data stay whole when a holder panics.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
