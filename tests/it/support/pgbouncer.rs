//! PgBouncer in front of a server: the most common pooler (Debian's package `pgbouncer`).

use pointsman::testkit::wait::until;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use pointsman::testkit::Server;
use tempfile::TempDir;

/// One that runs until it is dropped, also by a panic.
pub(crate) struct PgBouncer {
    process: Child,
    pub(crate) address: SocketAddr,
    database: String,
    _folder: TempDir,
}

impl PgBouncer {
    /// Starts one in a pool mode, with further lines in its section of settings.
    pub(crate) async fn start(server: &Server, mode: &str, further: &str) -> Self {
        let config: tokio_postgres::Config = server.url().parse().unwrap();
        let password = String::from_utf8(config.get_password().unwrap().to_vec()).unwrap();
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgbouncer.ini");
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={} user={} password='{}'\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = {mode}\ndefault_pool_size = 30\n{further}\n",
            server.port(),
            config.get_user().unwrap(),
            password.replace('\'', "''"),
        );
        fs::write(&path, settings).unwrap();
        let mut command = Command::new(program());
        // It refuses to run as root, and reads its settings before it changes to another user.
        if fs::metadata(folder.path()).unwrap().uid() == 0 {
            command.args(["-u", "nobody"]);
        }
        let process =
            command.arg("-q").arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let database = config.get_dbname().unwrap().to_owned();
        let bouncer = Self { process, address, database, _folder: folder };
        until("PgBouncer listens", async || tokio::net::TcpStream::connect(address).await.is_ok())
            .await
            .unwrap();
        bouncer
    }

    /// The URL through it, or through a proxy in front of it.
    pub(crate) fn url(&self, address: SocketAddr) -> String {
        format!("postgres://app@{address}/{}", self.database)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Debian installs it among the programs of the administrator.
fn program() -> PathBuf {
    let usual = PathBuf::from("/usr/sbin/pgbouncer");
    if usual.exists() { usual } else { PathBuf::from("pgbouncer") }
}
