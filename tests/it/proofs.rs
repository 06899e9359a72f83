//! A monitor that cannot log in: the proof about its server, and the working sessions.

use diesel::sql_query;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pointsman::prelude::*;
use pointsman::testkit::Server;
use pointsman::testkit::wait::until;
use pointsman::topology::{Health, PrimaryStatus};
use pointsman::{Config, ReplicaSet};
use tokio_postgres::NoTls;

use crate::support::{fixture, start_cluster, value};
use crate::tls::Certificates;

/// Ends the sessions of the monitors alone, so that they must log in again.
const END_PROBE_SESSIONS: &str = "
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE query ~ 'pg_last_wal|pg_is_in_recovery|pg_control' AND usename = 'app' AND pid <> pg_backend_pid()";

/// A session in the middle of a transaction.
async fn working(set: &ReplicaSet) -> Conn<Write> {
    let conn = set.write().await.expect("a primary");
    sql_query("BEGIN").execute(&conn).await.expect("a transaction");
    conn
}

/// Lets the monitor try repeatedly, then uses the earlier session.
async fn assert_it_goes_on(set: &ReplicaSet, conn: &Conn<Write>, health: Health, reason: &str) {
    let probes = || set.health().nodes[0].probes;
    let before = probes();
    until("the monitor tries", async || probes() >= before + 5).await.unwrap();
    value(conn, "SELECT 1").await.expect("the transaction goes on");
    sql_query("COMMIT").execute(conn).await.expect("and commits");
    let topology = set.topology();
    assert!(matches!(topology.primary, PrimaryStatus::One { .. }), "{topology:?}");
    let node = &topology.nodes[0];
    assert_eq!(node.health, health, "{node:?}");
    assert!(node.reason.as_ref().is_some_and(|text| text.contains(reason)), "{node:?}");
}

/// Runs SQL as the superuser in another database than the program's.
async fn administer(server: &Server, sql: &str) {
    let (address, _) =
        server.admin_url().rsplit_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let (client, connection) =
        tokio_postgres::connect(&format!("{address}/postgres"), NoTls).await.expect("a session");
    let driver = tokio::spawn(connection);
    client.batch_execute(sql).await.expect("a statement");
    driver.abort();
}

fn database(server: &Server) -> String {
    server.url().rsplit_once('/').expect("a database").1.to_owned()
}

/// 42501 counted as a failed probe, so the second one closed every working session.
#[tokio::test]
async fn a_revoked_right_to_connect_ends_no_session() {
    let (cluster, set) = fixture(0).await;
    let (conn, server) = (working(&set).await, cluster.primary());
    let name = database(server);
    administer(server, &format!("REVOKE CONNECT ON DATABASE \"{name}\" FROM PUBLIC, app")).await;
    server.query_value(END_PROBE_SESSIONS).await.unwrap();
    assert_it_goes_on(&set, &conn, Health::LoginRejected, "42501").await;
    administer(server, &format!("GRANT CONNECT ON DATABASE \"{name}\" TO app")).await;
    until("it is up again", async || set.topology().nodes[0].health == Health::Up).await.unwrap();
}

/// 55000 counted as a failed probe.
#[tokio::test]
async fn a_database_that_allows_no_connections_keeps_its_sessions() {
    let (cluster, set) = fixture(0).await;
    let (conn, server) = (working(&set).await, cluster.primary());
    let name = database(server);
    administer(server, &format!("ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS false")).await;
    administer(server, END_PROBE_SESSIONS).await;
    assert_it_goes_on(&set, &conn, Health::LoginRejected, "55000").await;
    administer(server, &format!("ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS true")).await;
    until("it is up again", async || set.topology().nodes[0].health == Health::Up).await.unwrap();
}

/// The handshake of the monitor's next session failed, and the set took that for a dead server.
#[tokio::test]
async fn an_expired_certificate_ends_no_session() {
    let certificates = Certificates::new();
    certificates.authority("ours");
    certificates.issue("ours", "server", "/CN=db.example", "IP:127.0.0.1");
    let cluster = certificates.server("server", &[]).await;
    let server = cluster.primary();
    let url = format!("{}?sslmode=verify-full{}", server.url(), certificates.root("ours"));
    let set = crate::support::start(crate::support::urls_of([url])).await;
    let conn = working(&set).await;
    certificates.expire("ours", "server", "/CN=db.example", "IP:127.0.0.1");
    server.execute("SELECT pg_reload_conf()").await.unwrap();
    until("the server shows the new certificate", async || server.log().contains("SIGHUP")).await.unwrap();
    server.query_value(END_PROBE_SESSIONS).await.unwrap();
    assert_it_goes_on(&set, &conn, Health::Unchecked, "certificate").await;
}

/// A program without a free descriptor marked every node as unreachable, and closed its sessions.
#[test]
fn a_program_out_of_descriptors_keeps_its_sessions() {
    // The limit holds for a whole process, so the incident runs in a separate one: this test, run once more.
    if std::env::var_os("POINTSMAN_OUT_OF_DESCRIPTORS").is_none() {
        let name = "proofs::a_program_out_of_descriptors_keeps_its_sessions";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env("POINTSMAN_OUT_OF_DESCRIPTORS", "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let cluster = start_cluster(0).await;
        let config = Config::builder().primary(cluster.primary().url()).build().unwrap();
        let set = ReplicaSet::connect(config).await.unwrap();
        let conn = working(&set).await;
        let (client, connection) =
            tokio_postgres::connect(&cluster.primary().admin_url(), NoTls).await.unwrap();
        let _driver = tokio::spawn(connection);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
        client.batch_execute(END_PROBE_SESSIONS).await.unwrap();
        assert_it_goes_on(&set, &conn, Health::Unchecked, "descriptor").await;
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        until("it is up again", async || set.topology().nodes[0].health == Health::Up).await.unwrap();
    });
}
