//! Tidies up, however the test ends.
//!
//! `Drop` doesn't run after `process::exit`, after an abort or after SIGKILL. So a small shell holds one end of a pipe,
//! and this process the other. When this process's end closes, for any reason, the shell ends every server in the
//! folder and removes the folder. `Drop` takes the same way: it closes the pipe and waits, so the only way to tidy up
//! is the tested one.

use super::error::{Result, TestkitError, file};
use super::os_user::OsUser;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// Ends the servers and removes the folder once its standard input closes.
const SCRIPT: &str = include_str!("watchdog.sh");

/// The variable that marks processes of other programs than PostgreSQL.
#[cfg(target_os = "linux")]
pub(super) const FOLDER_VARIABLE: &str = "POINTSMAN_TESTKIT_FOLDER";

/// The folder of a cluster, which is removed with its contents and its processes.
#[derive(Debug)]
pub(super) struct Watchdog {
    folder: PathBuf,
    shell: Child,
}

impl Watchdog {
    /// Creates a folder in `parent`, guarded from its first moment.
    pub(super) fn guard(os_user: OsUser, parent: &Path) -> Result<Self> {
        let name = format!("pointsman-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let folder = parent.join(name);
        let mut command = os_user.command(Path::new("/bin/sh"), Path::new("/"));
        // The shell makes the folder itself, so there is no moment in which it is unguarded.
        command.args(["-c", SCRIPT, "pointsman-watchdog"]).arg(&folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let failed =
            |source| TestkitError::File { doing: "start a watchdog for", path: folder.clone(), source };
        let mut shell = command.spawn().map_err(failed)?;
        let mut answer = String::new();
        if let Some(said) = shell.stdout.take() {
            BufReader::new(said).read_line(&mut answer).map_err(file("watch", &folder))?;
        }
        let watchdog = Self { folder, shell };
        if answer.trim() == "ready" {
            return Ok(watchdog);
        }
        let source = std::io::Error::other("the user of the servers may not create it");
        Err(TestkitError::File { doing: "create", path: watchdog.folder.clone(), source })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // It cannot hang: the shell kills processes and never waits for a server to cooperate.
        let _ = self.shell.wait();
    }
}
