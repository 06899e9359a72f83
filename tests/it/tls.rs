//! TLS towards a real server: every `sslmode`, with right and wrong certificates and names.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use pointsman::config::WriteSettings;
use pointsman::prelude::*;
use pointsman::testkit::Cluster;
use pointsman::testkit::wait::until;
use pointsman::{CheckoutError, Config, ConnectError, Error, ReplicaSet};
use tempfile::TempDir;

use crate::support::{checkout_within, start, start_cluster, urls_of, value};

/// An authority and its certificates, in a separate folder.
pub(crate) struct Certificates {
    folder: TempDir,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .expect("openssl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Creates an authority: its certificate and its key.
    pub(crate) fn authority(&self, name: &str) {
        self.self_signed(name, "CA:TRUE", &format!("/CN={name}"), "DNS:authority.invalid");
    }

    fn self_signed(&self, name: &str, constraints: &str, subject: &str, names: &str) {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
        let constraints = format!("basicConstraints=critical,{constraints}");
        let names = format!("subjectAltName={names}");
        let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let rest = ["-days", "2", "-subj", subject, "-addext", &names, "-keyout", &key, "-out", &certificate];
        // An extension that is given twice is refused by some versions, so the default is replaced by a configuration.
        let config = self.path(&format!("{name}.cnf"));
        std::fs::write(
            &config,
            format!("[req]\ndistinguished_name=dn\nx509_extensions=ext\n[dn]\n[ext]\n{constraints}\n"),
        )
        .expect("a file");
        self.openssl(&[&new[..], &["-config", &config.display().to_string()], &rest].concat());
    }

    /// Issues a certificate for these names.
    pub(crate) fn issue(&self, authority: &str, name: &str, subject: &str, names: &str) {
        self.issue_for(authority, name, subject, names, "2");
    }

    /// Replaces a certificate and its key by expired ones, for the same user of the server.
    pub(crate) fn expire(&self, authority: &str, name: &str, subject: &str, names: &str) {
        self.issue_for(authority, "expired", subject, names, "-1");
        for kind in ["crt", "key"] {
            // Written into the existing file, which keeps its owner.
            let bytes = std::fs::read(self.path(&format!("expired.{kind}"))).expect("a file");
            std::fs::write(self.path(&format!("{name}.{kind}")), bytes).expect("a file");
        }
    }

    fn issue_for(&self, authority: &str, name: &str, subject: &str, names: &str, days: &str) {
        let (key, request, certificate) =
            (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        let new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        self.openssl(&[&new[..], &["-subj", subject, "-keyout", &key, "-out", &request]].concat());
        let extensions = self.path(&format!("{name}.ext"));
        std::fs::write(&extensions, format!("subjectAltName={names}\n")).expect("a file");
        let (ca, ca_key) = (format!("{authority}.crt"), format!("{authority}.key"));
        let sign = ["x509", "-req", "-days", days, "-in", &request, "-CA", &ca, "-CAkey", &ca_key];
        let extensions = extensions.display().to_string();
        self.openssl(
            &[&sign[..], &["-CAcreateserial", "-extfile", &extensions, "-out", &certificate]].concat(),
        );
    }

    /// A server that has this certificate, and trusts the clients of `authority`.
    pub(crate) async fn server(&self, certificate: &str, more: &[(&str, &str)]) -> Cluster {
        // The server insists that no other user can read its key, and runs as another user if the test is root.
        let owner = nix::unistd::geteuid()
            .is_root()
            .then(|| {
                ["postgres", "nobody"]
                    .iter()
                    .find_map(|name| nix::unistd::User::from_name(name).ok().flatten())
            })
            .flatten();
        let place = |path: &Path| {
            use std::os::unix::fs::{PermissionsExt, chown};
            let mode = if path.is_dir() { 0o755 } else { 0o600 };
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("permissions");
            if let (Some(owner), false) = (&owner, path.is_dir()) {
                chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw())).expect("an owner");
            }
        };
        place(self.folder.path());
        let file = |name: &str| {
            let path = self.path(name);
            place(&path);
            path.display().to_string()
        };
        let builder = Cluster::builder()
            .setting("ssl", "on")
            .setting("ssl_cert_file", file(&format!("{certificate}.crt")))
            .setting("ssl_key_file", file(&format!("{certificate}.key")));
        let builder = more.iter().fold(builder, |builder, (key, value)| builder.setting(*key, *value));
        builder.start().await.expect("a server with TLS")
    }

    pub(crate) fn root(&self, name: &str) -> String {
        format!("&sslrootcert={}", self.path(&format!("{name}.crt")).display())
    }
}

/// An authority `ours` that issued `server` for 127.0.0.1 and localhost, another one called `other`, and a server.
async fn tls_fixture() -> (Certificates, Cluster) {
    let certificates = Certificates::new();
    certificates.authority("ours");
    certificates.authority("other");
    certificates.issue("ours", "server", "/CN=db.example", "IP:127.0.0.1,DNS:localhost,DNS:db.example");
    let cluster = certificates.server("server", &[]).await;
    (certificates, cluster)
}

async fn set_at(url: String) -> ReplicaSet {
    let soon = Duration::from_millis(300);
    let writes = WriteSettings { failover_wait: soon, ..WriteSettings::default() };
    start(urls_of([url]).timeouts(checkout_within(soon)).writes(writes)).await
}

/// Returns `true` if the session is encrypted, according to the server.
async fn encrypted(url: String) -> String {
    let set = set_at(url).await;
    let conn = set.read().await.unwrap_or_else(|error| panic!("{error:?}"));
    value(&conn, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await.expect("a session")
}

/// The reason why no session began, with its causes.
async fn refused(url: String) -> String {
    let set = set_at(url.clone()).await;
    let error = set.read().await.err().unwrap_or_else(|| panic!("{url} should be refused"));
    let CheckoutError::NoNode { failures, .. } = &error else { panic!("{error}") };
    let error = failures[0].error.as_deref().unwrap_or_else(|| panic!("{error}"));
    assert!(matches!(error, ConnectError::Tls(_)), "{error:?}");
    assert!(error.proves_alive(), "the server showed its certificate, or that it has none");
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {cause}")
}

#[tokio::test]
async fn each_sslmode_checks_what_libpq_checks() {
    let (certificates, cluster) = tls_fixture().await;
    let url = |rest: &str| format!("{}?{rest}", cluster.primary().url());
    let (ours, other) = (certificates.root("ours"), certificates.root("other"));

    assert_eq!(encrypted(url("sslmode=disable")).await, "false");
    assert_eq!(encrypted(cluster.primary().url()).await, "true", "prefer is the default");
    for rest in ["sslmode=prefer", "sslmode=require"] {
        assert_eq!(encrypted(url(rest)).await, "true", "{rest}");
    }
    for mode in ["require", "verify-ca", "verify-full"] {
        assert_eq!(encrypted(url(&format!("sslmode={mode}{ours}"))).await, "true", "{mode}");
        let reason = refused(url(&format!("sslmode={mode}{other}"))).await;
        assert!(reason.contains("sslrootcert") && reason.contains("UnknownIssuer"), "{mode}: {reason}");
    }
    for mode in ["verify-ca", "verify-full"] {
        let reason = refused(url(&format!("sslmode={mode}"))).await;
        assert!(reason.contains("UnknownIssuer") || reason.contains("root certificate"), "{mode}: {reason}");
    }
}

#[tokio::test]
async fn only_verify_full_checks_the_name() {
    let certificates = Certificates::new();
    certificates.authority("ours");
    certificates.issue("ours", "server", "/CN=db.example", "DNS:db.example");
    let cluster = certificates.server("server", &[]).await;
    let ours = certificates.root("ours");
    let url = |rest: &str| format!("{}?{rest}{ours}", cluster.primary().url());
    assert_eq!(encrypted(url("sslmode=require")).await, "true");
    assert_eq!(encrypted(url("sslmode=verify-ca")).await, "true");
    let reason = refused(url("sslmode=verify-full")).await;
    assert!(reason.contains("not valid for name"), "{reason}");
    let by_name = url("sslmode=verify-full").replace("127.0.0.1", "localhost");
    assert!(refused(by_name).await.contains("localhost"));
}

#[tokio::test]
async fn verify_full_takes_a_name_as_well_as_an_address() {
    let (certificates, cluster) = tls_fixture().await;
    let url = format!("{}?sslmode=verify-full{}", cluster.primary().url(), certificates.root("ours"));
    assert_eq!(encrypted(url.replace("127.0.0.1", "localhost")).await, "true");
}

/// The output of `openssl req -x509`, which many servers have: their certificate is its own authority.
#[tokio::test]
async fn a_self_signed_certificate_can_be_trusted_itself() {
    for constraints in ["CA:TRUE", "CA:FALSE"] {
        let certificates = Certificates::new();
        certificates.self_signed("server", constraints, "/CN=localhost", "IP:127.0.0.1");
        certificates.authority("other");
        let cluster = certificates.server("server", &[]).await;
        // The server's user has the file; a client gets a copy.
        std::fs::copy(certificates.path("server.crt"), certificates.path("copy.crt")).unwrap();
        let url = |rest: &str| format!("{}?{rest}", cluster.primary().url());
        let (own, other) = (certificates.root("copy"), certificates.root("other"));
        for mode in ["verify-ca", "verify-full"] {
            assert_eq!(encrypted(url(&format!("sslmode={mode}{own}"))).await, "true", "{constraints} {mode}");
            refused(url(&format!("sslmode={mode}{other}"))).await;
        }
        let elsewhere = url(&format!("sslmode=verify-full{own}")).replace("127.0.0.1", "localhost");
        assert!(refused(elsewhere).await.contains("localhost"), "{constraints}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_required() {
    let cluster = start_cluster(0).await;
    let url = |mode: &str| format!("{}?sslmode={mode}", cluster.primary().url());
    assert_eq!(encrypted(url("prefer")).await, "false");
    let reason = refused(url("require")).await;
    assert!(reason.contains("does not offer TLS"), "{reason}");
}

/// The configuration has checked the files, so they were removed or changed since.
#[tokio::test]
async fn a_missing_certificate_file_is_an_error_of_connect_that_names_node_and_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.pem");
    let shown = path.display().to_string();
    let key = format!("sslmode=require&sslcert={shown}&sslkey");
    for rest in ["sslmode=verify-full&sslrootcert", &key] {
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\n").unwrap();
        let url = format!("postgres://app@db-1/payments?{rest}={shown}");
        let config = Config::builder().primary(url).build().unwrap();
        std::fs::remove_file(&path).unwrap();
        let error = ReplicaSet::connect(config).await.unwrap_err();
        let Error::Node { node, source } = &error else { panic!("{error}") };
        assert_eq!(node, "db-1:5432");
        let cause = std::error::Error::source(source).expect("a cause").to_string();
        assert!(cause.contains(&shown), "{cause}");
    }
}

#[tokio::test]
async fn a_certificate_file_without_a_certificate_is_an_error_of_connect() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.pem");
    std::fs::write(&path, "-----BEGIN SOMETHING ELSE-----\n").unwrap();
    let url = format!("postgres://app@db-1/payments?sslmode=verify-ca&sslrootcert={}", path.display());
    let error = ReplicaSet::connect(Config::builder().primary(url).build().unwrap()).await.unwrap_err();
    assert!(matches!(&error, Error::Node { source: ConnectError::Tls(_), .. }), "{error:?}");
}

/// SCRAM binds the password's exchange to this very TLS session, where both sides know how.
#[tokio::test]
async fn the_login_is_bound_to_the_channel() {
    let (certificates, cluster) = tls_fixture().await;
    let url = |rest: &str| format!("{}?{rest}channel_binding=require", cluster.primary().url());
    let ours = certificates.root("ours");
    assert_eq!(encrypted(url(&format!("sslmode=verify-full{ours}&"))).await, "true");
    let set = set_at(url("sslmode=disable&")).await;
    let error = set.read().await.unwrap_err();
    assert!(
        matches!(error, CheckoutError::NoNode { .. }),
        "without TLS there is nothing to bind to: {error}"
    );
}

/// The code that inspects the bytes has to see inside the encryption.
#[tokio::test]
async fn the_protocol_tap_works_through_tls() {
    let (certificates, cluster) = tls_fixture().await;
    let url = format!("{}?sslmode=verify-full{}", cluster.primary().url(), certificates.root("ours"));
    let set = set_at(url).await;
    let mut conn = set.write().await.unwrap();
    diesel::sql_query("SELECT 1/0").execute(&conn).await.unwrap_err();
    assert_eq!(conn.last_sqlstate(), Some(pointsman::SqlState::new(*b"22012")));
    let swallowed: QueryResult<()> = conn
        .transaction(async |tx| {
            let _ = diesel::sql_query("SELECT 1/0").execute(tx).await;
            Ok(())
        })
        .await;
    assert!(pointsman::TransactionFailed::find(&swallowed.unwrap_err()).is_some());
    // An abandoned statement is cancelled, over TLS too.
    let slow = diesel::sql_query("SELECT pg_sleep(600)").execute(&conn);
    assert!(tokio::time::timeout(Duration::from_millis(100), slow).await.is_err());
    drop(conn);
    let running = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    until("it is cancelled", async || cluster.primary().query_value(running).await.unwrap() == "0")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_client_certificate_is_sent() {
    let certificates = Certificates::new();
    certificates.authority("ours");
    certificates.issue("ours", "server", "/CN=db.example", "IP:127.0.0.1");
    certificates.issue("ours", "client", "/CN=app", "DNS:app");
    let trusted = certificates.path("trusted.crt");
    std::fs::copy(certificates.path("ours.crt"), &trusted).unwrap();
    let cluster = certificates.server("server", &[("ssl_ca_file", &trusted.display().to_string())]).await;
    let url = format!(
        "{}?sslmode=verify-full{}&sslcert={}&sslkey={}",
        cluster.primary().url(),
        certificates.root("ours"),
        certificates.path("client.crt").display(),
        certificates.path("client.key").display()
    );
    let set = set_at(url).await;
    let conn = set.read().await.unwrap();
    let shown = "SELECT client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(value(&conn, shown).await.unwrap(), "/CN=app");
}
