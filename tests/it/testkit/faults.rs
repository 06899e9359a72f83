//! A server is lost, hangs, or ends in order.

use super::{ask, code, connect, hangs};
use crate::support::start_cluster;
use pointsman::testkit::TestkitError;
use pointsman::testkit::wait::until;
use std::io::ErrorKind;
use std::path::Path;
use tokio::net::TcpStream;
use tokio_postgres::error::SqlState;

/// Returns the number of processes in a folder, without zombies, which are dead.
pub(super) fn processes_in(folder: &Path) -> usize {
    let alive = |process: &Path| {
        let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
    };
    let inside =
        |process: &Path| std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter(|entry| inside(&entry.path()) && alive(&entry.path())).count()
}

async fn refuses(port: u16) -> bool {
    let attempt = TcpStream::connect(("127.0.0.1", port)).await;
    attempt.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[tokio::test]
async fn a_killed_server_ends_its_sessions_and_recovers() {
    let cluster = start_cluster(0).await;
    let server = cluster.primary();
    server.execute("CREATE TABLE train (number int); INSERT INTO train VALUES (12)").await.unwrap();
    let client = connect(&server.url()).await.unwrap();
    let pid = server.pid().unwrap();
    // A backend that is busy would outlive its postmaster for as long as it is busy.
    let busy = "SELECT sum(a)::text FROM generate_series(1, 1000000000) a";
    let (answer, ()) = tokio::join!(ask(&client, busy), async {
        let running =
            format!("SELECT count(*) FROM pg_stat_activity WHERE query = '{busy}' AND state = 'active'");
        until("the query runs", async || server.query_value(&running).await.unwrap() == "1").await.unwrap();
        server.kill().await.unwrap();
        assert_eq!(processes_in(server.data_dir()), 0);
    });
    let lost = answer.unwrap_err();
    assert_eq!(code(&lost), None, "a killed server says nothing: {lost}");
    assert!(client.is_closed());
    assert!(server.pid().is_none() && !server.is_running());
    assert!(refuses(server.port()).await);

    server.start().await.unwrap();
    assert_ne!(server.pid().unwrap(), pid);
    assert_eq!(server.query_value("SELECT number FROM train").await.unwrap(), "12");
}

#[tokio::test]
async fn a_paused_server_accepts_connections_and_answers_nothing_until_it_is_resumed() {
    let cluster = start_cluster(0).await;
    let server = cluster.primary();
    let client = connect(&server.url()).await.unwrap();

    server.pause().await.unwrap();
    TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    assert!(hangs(connect(&server.url())).await);
    let answer = ask(&client, "SELECT 'late'");
    tokio::pin!(answer);
    assert!(hangs(&mut answer).await);

    server.resume().await.unwrap();
    assert_eq!(answer.await.unwrap(), "late");
    connect(&server.url()).await.unwrap();
}

#[tokio::test]
async fn a_paused_server_can_be_killed_and_stopped() {
    let cluster = start_cluster(0).await;
    let server = cluster.primary();
    server.pause().await.unwrap();
    server.kill().await.unwrap();
    server.start().await.unwrap();
    server.pause().await.unwrap();
    server.stop().await.unwrap();
    assert_eq!(processes_in(server.data_dir()), 0);
    let refused = server.pause().await.unwrap_err();
    assert!(matches!(refused, TestkitError::State { .. }), "{refused}");
}

#[tokio::test]
async fn a_stopped_server_ends_its_sessions_with_57p01_and_an_immediate_stop_without() {
    let cluster = start_cluster(0).await;
    let server = cluster.primary();

    let client = connect(&server.url()).await.unwrap();
    let (answer, stopped) = tokio::join!(ask(&client, "SELECT pg_sleep(60)::text"), async {
        let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        until("it sleeps", async || server.query_value(sleeping).await.unwrap() == "1").await.unwrap();
        server.stop().await
    });
    stopped.unwrap();
    assert_eq!(code(&answer.unwrap_err()), Some(&SqlState::ADMIN_SHUTDOWN));
    assert!(refuses(server.port()).await);

    server.start().await.unwrap();
    let client = connect(&server.url()).await.unwrap();
    server.stop_immediate().await.unwrap();
    // Its warning (57P01) is no error, and does not always get through.
    assert_eq!(code(&ask(&client, "SELECT 'lost'").await.unwrap_err()), None);

    server.start().await.unwrap();
    assert!(server.log().contains("not properly shut down"), "{}", server.log());
    let before = server.pid();
    server.restart().await.unwrap();
    assert_ne!(server.pid(), before);
}

#[tokio::test]
async fn a_server_that_is_starting_can_be_watched() {
    let cluster = start_cluster(0).await;
    let server = cluster.primary();
    server.stop().await.unwrap();
    server.spawn_start().await.unwrap();
    assert!(server.is_running());
    // Refused, or "the database system is starting up", and at last served.
    until("it serves", async || connect(&server.url()).await.is_ok()).await.unwrap();
    server.start().await.unwrap();
}

#[tokio::test]
async fn the_port_of_a_server_that_is_down_stays_its_own() {
    let cluster = start_cluster(0).await;
    let server = cluster.primary();
    server.kill().await.unwrap();
    // A client that asks for any port gets another one, and so does one that connects.
    let mut others = Vec::new();
    for _ in 0..200 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_ne!(listener.local_addr().unwrap().port(), server.port());
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_ne!(client.local_addr().unwrap().port(), server.port());
        others.push((listener, client));
    }
    server.start().await.unwrap();
}
