//! The operating system's user that runs the servers.

use super::error::{Result, TestkitError, file};
use nix::unistd::{User, geteuid};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The users that root drops to, the first that exists.
///
/// `postgres` comes with the packages of PostgreSQL; `nobody` is on every machine, also where the
/// programs were built by hand.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// The user that owns the folder of a cluster and runs its servers.
#[derive(Debug, Clone, Copy)]
pub(super) struct OsUser {
    uid: u32,
    gid: u32,
    /// `true` if a process has to change to this user, because the test runs as root.
    drops: bool,
}

impl OsUser {
    /// Takes the user of this process, or an unprivileged one if it is root.
    pub(super) fn find() -> Result<Self> {
        let own = geteuid();
        if !own.is_root() {
            return Ok(Self { uid: own.as_raw(), gid: nix::unistd::getegid().as_raw(), drops: false });
        }
        let wanted = std::env::var("POINTSMAN_TESTKIT_USER").ok();
        let names: Vec<&str> = wanted.as_deref().map_or_else(|| CANDIDATES.to_vec(), |name| vec![name]);
        names
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .filter(|user| !user.uid.is_root())
            .map(|user| Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), drops: true })
            .ok_or_else(|| TestkitError::NoUser { tried: names.join("`, `") })
    }

    pub(super) fn uid(self) -> u32 {
        self.uid
    }

    /// Prepares a program that runs as this user, in `folder`.
    ///
    /// The program gets a separate process group: Ctrl-C in a terminal ends the test, and the watchdog then ends the
    /// servers in order. It never inherits the test's output, because that would keep a pipe like `cargo test | tee`
    /// open.
    pub(super) fn command(self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(folder).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // A variable like PGPORT or PGOPTIONS would change how programs reach the cluster.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C");
        if self.drops {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Runs a program until it ends.
    pub(super) fn run(self, program: &Path, folder: &Path, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(program, folder);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(program, command.output())
    }

    /// Changes the owner of a file to this user.
    pub(super) fn own(self, path: &Path) -> Result<()> {
        if self.drops {
            std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
                .map_err(file("hand over", path))?;
        }
        Ok(())
    }

    /// Writes a file of this user atomically, so that a server never reads half of it.
    pub(super) fn write(self, path: &Path, content: &str) -> Result<()> {
        let draft = path.with_extension("draft");
        std::fs::write(&draft, content).map_err(file("write", &draft))?;
        self.own(&draft)?;
        std::fs::rename(&draft, path).map_err(file("write", path))
    }
}

/// Turns the end of a program into its output, or into an error with it.
pub(super) fn finish(program: &Path, output: std::io::Result<std::process::Output>) -> Result<String> {
    let program = program.display().to_string();
    let output = output
        .map_err(|error| TestkitError::Program { program: program.clone(), output: error.to_string() })?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(TestkitError::Program {
        program,
        output: format!("{}; {}{said}", output.status, complaint.trim_end()),
    })
}
