//! A data directory that was initialised once, and is copied for every server.
//!
//! `initdb` takes a second, a copy a tenth of one. The template stays in the folder for temporary files, for all test
//! programs of one user and version of PostgreSQL. No other user may write there.

use super::error::{Result, TestkitError, file};
use super::os_user::{OsUser, finish};
use super::programs::Programs;
use super::{ADMIN, APP, APP_VERIFIER, identity};
use std::fs::{DirBuilder, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

/// Version of the templates; a change keeps older ones from being used.
const LAYOUT: u32 = 2;

/// The smallest settings of a server, which the template remembers.
///
/// A standby refuses to start with less than its primary last had, and a test may want little.
const LEAST: [&str; 6] = [
    "max_connections=1",
    "superuser_reserved_connections=0",
    "max_worker_processes=0",
    "max_wal_senders=0",
    "max_prepared_transactions=0",
    "max_locks_per_transaction=10",
];

/// Age at which a template is renewed.
///
/// Systems delete temporary files that are days old, one by one, and a template with holes would be worse than none.
const LONGEST_USE: Duration = Duration::from_secs(24 * 3600);

/// A template, ready to be copied.
#[derive(Debug)]
pub(super) struct Template {
    data: PathBuf,
    /// The superuser's password, drawn when the template was made.
    pub(super) admin_password: String,
    /// Keeps others from renewing the template while it is copied.
    _in_use: Flock<File>,
}

impl Template {
    /// Takes the template from the cache, or makes it.
    pub(super) fn take(os_user: OsUser, programs: &Programs) -> Result<Self> {
        let cache = private_folder(os_user)?;
        let key = format!("pg{}-layout{LAYOUT}", programs.version().replace('/', "_"));
        let (folder, lock) = (cache.join(&key), cache.join(format!("{key}.lock")));
        let locked = |how| {
            let opened = File::create(&lock).map_err(file("create", &lock))?;
            Flock::lock(opened, how).map_err(|(_, errno)| file("lock", &lock)(errno.into()))
        };
        let in_use = loop {
            let in_use = locked(FlockArg::LockShared)?;
            if is_fresh(&folder) {
                break in_use;
            }
            drop(in_use);
            let _made_here = locked(FlockArg::LockExclusive)?;
            if !is_fresh(&folder) {
                make(os_user, programs, &cache, &folder)?;
            }
        };
        let secret = folder.join("admin-password");
        let admin_password = std::fs::read_to_string(&secret).map_err(file("read", &secret))?;
        Ok(Self { data: folder.join("data"), admin_password, _in_use: in_use })
    }

    /// Copies the template to each of `targets`, at once.
    ///
    /// The copies are one cluster with its own identifier.
    pub(super) fn copy(&self, os_user: OsUser, folder: &Path, targets: &[PathBuf]) -> Result<()> {
        let cp = Path::new("cp");
        let start = |target: &PathBuf| -> std::io::Result<Child> {
            let mut command = os_user.command(cp, folder);
            command.arg("-Rp").arg(&self.data).arg(target).stderr(Stdio::piped()).spawn()
        };
        let copies: Vec<_> = targets.iter().map(start).collect();
        let system_identifier = identity::draw();
        for (copy, target) in copies.into_iter().zip(targets) {
            finish(cp, copy.and_then(Child::wait_with_output))?;
            identity::assign(target, system_identifier)?;
        }
        Ok(())
    }
}

/// Creates or checks the folder of templates.
///
/// A superuser's files must not come from another user.
fn private_folder(os_user: OsUser) -> Result<PathBuf> {
    let temp = std::env::temp_dir();
    let temp = temp.canonicalize().map_err(file("find", &temp))?;
    let cache = temp.join(format!("pointsman-templates-{}", os_user.uid()));
    match DirBuilder::new().mode(0o700).create(&cache) {
        Ok(()) => os_user.own(&cache)?,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(file("create", &cache)(error)),
    }
    let found = std::fs::symlink_metadata(&cache).map_err(file("read", &cache))?;
    // Root makes the folder first and hands it over afterwards: between the two it is root's.
    let owners = [os_user.uid(), nix::unistd::geteuid().as_raw()];
    if found.is_dir() && found.mode() & 0o077 == 0 && owners.contains(&found.uid()) {
        os_user.own(&cache)?;
        return Ok(cache);
    }
    Err(TestkitError::Untrusted { path: cache, uid: os_user.uid() })
}

fn is_fresh(folder: &Path) -> bool {
    let made = std::fs::metadata(folder.join("admin-password")).and_then(|found| found.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age < LONGEST_USE))
}

/// Creates the template beside its place and moves it, so that it is complete.
fn make(os_user: OsUser, programs: &Programs, cache: &Path, folder: &Path) -> Result<()> {
    let draft = tempfile::Builder::new()
        .prefix("draft-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(cache)
        .map_err(file("write to", cache))?;
    os_user.own(draft.path())?;
    let data = draft.path().join("data");
    let place = data.display().to_string();
    // With checksums, a server can also be rewound after a crash. The recovery before that runs with the settings in
    // the data directory, which are not ours.
    let shape = ["--data-checksums", "--locale=C", "--encoding=UTF8", "--no-sync"];
    let rest = ["--auth=reject", "-U", ADMIN, "-D", &place];
    os_user.run(&programs.path("initdb"), draft.path(), &[&shape[..], &rest[..]].concat())?;

    let password = draw_password()?;
    run_sql(
        os_user,
        programs,
        &data,
        "postgres",
        &format!(
            "ALTER ROLE {ADMIN} PASSWORD '{password}';\n\
             CREATE ROLE {APP} LOGIN PASSWORD '{APP_VERIFIER}';\n\
             CREATE DATABASE {APP} OWNER {APP};\n"
        ),
    )?;
    // The program under test may use the objects that a test makes with `Server::execute`.
    let grants = ["TABLES", "SEQUENCES", "ROUTINES"]
        .map(|kind| format!("ALTER DEFAULT PRIVILEGES FOR ROLE {ADMIN} GRANT ALL ON {kind} TO {APP};\n"));
    run_sql(os_user, programs, &data, APP, &grants.concat())?;
    os_user.write(&draft.path().join("admin-password"), &password)?;

    // Readers hold the lock, so the place is empty or holds an outdated template.
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(file("remove", folder))?;
    }
    std::fs::rename(draft.keep(), folder).map_err(file("write", folder))
}

/// Runs statements, one a line, in a single-process server, which needs no port.
fn run_sql(os_user: OsUser, programs: &Programs, data: &Path, database: &str, sql: &str) -> Result<()> {
    let postgres = programs.path("postgres");
    let mut command = os_user.command(&postgres, data);
    command.args(["--single", "-F", "-c", "exit_on_error=on"]);
    command.args(LEAST.iter().flat_map(|setting| ["-c", *setting]));
    command.arg("-D").arg(data).arg(database);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut run = || {
        let mut server = command.spawn()?;
        if let Some(mut input) = server.stdin.take() {
            input.write_all(sql.as_bytes())?;
        }
        server.wait_with_output()
    };
    finish(&postgres, run()).map(drop)
}

/// Draws a random password from the system.
///
/// The ports are open to every user of this machine, and a superuser's connection can run programs.
fn draw_password() -> Result<String> {
    use std::io::Read;
    let source = Path::new("/dev/urandom");
    let mut bytes = [0_u8; 16];
    File::open(source).and_then(|mut random| random.read_exact(&mut bytes)).map_err(file("read", source))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
