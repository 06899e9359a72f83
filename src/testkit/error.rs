//! The errors of the test kit, and their remedies.

use std::io;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The commands that install the server programs on common systems.
const INSTALL: &str = "install them (Debian, Ubuntu: `apt-get install postgresql`; Fedora: `dnf install \
    postgresql-server`; macOS: `brew install postgresql`), or set PG_BIN to the folder that holds them";

/// Reports why the test kit failed, and the remedy.
///
/// # Examples
///
/// ```
/// use pointsman::testkit::{Cluster, TestkitError};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let missing = Cluster::builder().programs("/nowhere").start().await;
/// let Err(error @ TestkitError::ProgramsMissing { .. }) = missing else { panic!("found PostgreSQL in /nowhere") };
/// assert!(error.to_string().contains("apt-get install postgresql"));
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestkitError {
    /// The server programs of PostgreSQL were not found.
    #[error("PostgreSQL's server programs (initdb, postgres) are not in {searched}: {INSTALL}")]
    ProgramsMissing {
        /// The folders that were searched.
        searched: String,
    },
    /// The programs are too old for the faults.
    ///
    /// A paused replay that reports itself came with 14.
    #[error(
        "found PostgreSQL {found}, and the test kit needs 14 or newer: set PG_BIN to the folder of a newer one"
    )]
    TooOld {
        /// The version that was found.
        found: String,
    },
    /// The test runs as root, which PostgreSQL refuses, and finds no other user.
    #[error(
        "PostgreSQL refuses to run as root and there is no user `{tried}` to run it as: create one (`useradd \
         --system postgres`), or name another in POINTSMAN_TESTKIT_USER"
    )]
    NoUser {
        /// The names that were tried.
        tried: String,
    },
    /// A file or folder could not be read or written.
    ///
    /// Most often the disk is full or rights are missing.
    #[error("cannot {doing} {}: see that its file system has room and that the user of the servers may write there (TMPDIR moves it)", path.display())]
    File {
        /// The attempted action, as a verb.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The folder of templates belongs to another user, so it cannot be trusted.
    #[error("{} is not a private folder of user {uid}: remove it, or set TMPDIR to a folder of your own", path.display())]
    Untrusted {
        /// The folder.
        path: PathBuf,
        /// The user that should own the folder.
        uid: u32,
    },
    /// A program could not be started, or reported a failure.
    #[error("`{program}` failed: {output}")]
    Program {
        /// The program.
        program: String,
        /// The end of its output.
        output: String,
    },
    /// The template is of a format that this version of the test kit does not know.
    #[error(
        "cannot give a copy of the template its own identity ({reason}): use a released version of PostgreSQL"
    )]
    Template {
        /// The unexpected part.
        reason: &'static str,
    },
    /// A server ended while it was starting.
    ///
    /// Its log has the reason, often an unknown setting.
    #[error("{server} did not start; its log ends with:\n{log}")]
    NotStarted {
        /// The server.
        server: String,
        /// The end of its log.
        log: String,
    },
    /// A condition of a server was not met in time.
    #[error("waited {} s for {server} {waiting_for} in vain: see its log, or whether the machine is overloaded", limit.as_secs())]
    Timeout {
        /// The server.
        server: String,
        /// The condition.
        waiting_for: String,
        /// The time limit.
        limit: Duration,
    },
    /// A condition of a test or of a set was not met in time.
    #[error("not within {} s: {condition} (waited for in {caller}){found}", limit.as_secs())]
    NotMet {
        /// The condition.
        condition: String,
        /// The line that waited.
        caller: &'static Location<'static>,
        /// The time limit.
        limit: Duration,
        /// The state at the end, if it is known.
        found: String,
    },
    /// A statement failed, or the server could not be reached.
    #[error("cannot run SQL on {server}: see that it is running, and the source of this error")]
    Sql {
        /// The server.
        server: String,
        /// The driver's error.
        source: tokio_postgres::Error,
    },
    /// A query that should return a value returned no row.
    #[error("the query on {server} gave no row: select exactly one value")]
    NoValue {
        /// The server.
        server: String,
    },
    /// The server is not in the state that the operation needs.
    #[error("{server} {is}: {remedy}")]
    State {
        /// The server.
        server: String,
        /// The server's state.
        is: &'static str,
        /// The remedy.
        remedy: &'static str,
    },
    /// The system did not provide a port or a socket.
    #[error("cannot {doing}: see that 127.0.0.1 works and that there are free ports")]
    Network {
        /// The attempted action, as a verb.
        doing: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A set could not be built.
    #[error("cannot make a set")]
    Set {
        /// The set's error.
        source: crate::Error,
    },
    /// The thread that forwards the connections of a proxy has ended.
    #[error("the proxy has ended: start another one")]
    ProxyEnded,
}

/// The result of the test kit's operations.
pub type Result<T, E = TestkitError> = std::result::Result<T, E>;

/// Turns an error of the file system into a [`TestkitError`].
///
/// It adds the path, which the original leaves out.
pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TestkitError {
    let path = path.to_owned();
    move |source| TestkitError::File { doing, path, source }
}
