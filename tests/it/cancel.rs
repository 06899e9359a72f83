//! Statements that are cancelled from another task, and later users who must not notice it.

use pointsman::testkit::wait::until;
use std::sync::Arc;
use std::time::Duration;

use pointsman::prelude::*;
use pointsman::testkit::Server;
use pointsman::{CancelError, CancelHandle, SqlState};
use tokio::time::sleep;

use crate::support::{backend, builder_of, fixture, in_use, pools_of, start, start_cluster, urls_of, value};
use crate::tls::Certificates;

const FOREVER: &str = "SELECT pg_sleep(600)";

fn is_portable<T: Clone + Send + Sync + 'static>() {}

/// Waits until a session runs an endless statement.
async fn sleeping(server: &Server) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(600)%' \
        AND pid <> pg_backend_pid()";
    until("it sleeps", async || server.query_value(sql).await.unwrap() == "1").await.unwrap();
}

async fn is_cancelled<I: Intent>(server: &Server, conn: &Conn<I>) {
    let handle = conn.cancel_handle();
    let cancel = async {
        sleeping(server).await;
        handle.cancel().await
    };
    let (outcome, cancelled) = tokio::join!(value(conn, FOREVER), cancel);
    cancelled.expect("the request went out");
    outcome.expect_err("it was cancelled");
    assert_eq!(conn.last_sqlstate(), Some(SqlState::new(*b"57014")));
}

/// `cancel_token` of the bare connection answers "unknown host", because it never dialled.
#[tokio::test]
async fn a_running_statement_is_cancelled_and_its_connection_can_be_used_on() {
    is_portable::<CancelHandle>();
    let (cluster, set) = fixture(1).await;
    let reader = set.read().await.unwrap();
    is_cancelled(cluster.replica(0), &reader).await;
    assert_eq!(value(&reader, "SELECT 1").await.unwrap(), "1");
    let mut writer = set.write().await.unwrap();
    is_cancelled(cluster.primary(), &writer).await;
    assert_eq!(value(&writer, "SELECT 1").await.unwrap(), "1");
    // In a transaction, which can be rolled back then.
    let handle = writer.cancel_handle();
    let cancel = async {
        sleeping(cluster.primary()).await;
        handle.cancel().await
    };
    let transaction = writer.transaction(async |tx| diesel::sql_query(FOREVER).execute(tx).await);
    let (outcome, cancelled) = tokio::join!(transaction, cancel);
    cancelled.expect("the request went out");
    outcome.expect_err("it was cancelled");
    assert_eq!(value(&writer, "SELECT 1").await.unwrap(), "1");
}

#[tokio::test]
async fn a_session_is_cancelled_over_tls_too() {
    let certificates = Certificates::new();
    certificates.authority("ours");
    certificates.issue("ours", "server", "/CN=db.example", "IP:127.0.0.1");
    let cluster = certificates.server("server", &[]).await;
    let url = format!("{}?sslmode=verify-full{}", cluster.primary().url(), certificates.root("ours"));
    let set = start(urls_of([url])).await;
    let conn = set.write().await.unwrap();
    assert_eq!(
        value(&conn, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await.unwrap(),
        "true"
    );
    is_cancelled(cluster.primary(), &conn).await;
}

#[tokio::test]
async fn a_cancel_handle_of_a_returned_connection_does_nothing() {
    let cluster = start_cluster(0).await;
    let set = start(builder_of(cluster.servers()).pool(pools_of(1))).await;
    let conn = set.write().await.unwrap();
    let (handle, before) = (conn.cancel_handle(), backend(&conn).await);
    drop(conn);
    assert!(matches!(handle.cancel().await, Err(CancelError::Returned)));
    let next = set.write().await.unwrap();
    assert_eq!(backend(&next).await, before, "the handle cost no session");
    let late = async {
        sleep(Duration::from_millis(50)).await;
        handle.clone().cancel().await
    };
    let (outcome, late) = tokio::join!(value(&next, "SELECT pg_sleep(0.3)"), late);
    outcome.expect("the next user's statement runs on");
    assert!(matches!(late, Err(CancelError::Returned)), "{late:?}");
}

#[tokio::test]
async fn cancelling_an_idle_session_sends_nothing() {
    let cluster = start_cluster(0).await;
    let set = start(builder_of(cluster.servers()).pool(pools_of(1))).await;
    let conn = set.write().await.unwrap();
    let before = backend(&conn).await;
    conn.cancel_handle().cancel().await.expect("nothing to do");
    drop(conn);
    assert_eq!(backend(&set.write().await.unwrap()).await, before);
}

/// A request that is under way when its connection goes back arrives at a session that the next user may have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_request_during_the_return_never_reaches_the_next_user() {
    let cluster = start_cluster(0).await;
    let set = Arc::new(start(builder_of(cluster.servers()).pool(pools_of(1))).await);
    let mut sent = 0;
    for round in 0_u64..150 {
        let conn = set.write().await.unwrap();
        let handle = conn.cancel_handle();
        let late = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_micros(round * 37 % 3000)).await;
            handle.cancel().await
        });
        // It ends by itself or is cancelled.
        let _ = value(&conn, "SELECT pg_sleep(0.002)").await;
        drop(conn);
        let next = set.write().await.unwrap();
        value(&next, "SELECT pg_sleep(0.005)").await.expect("the next user's statement runs to its end");
        drop(next);
        sent += u32::from(late.await.unwrap().is_ok());
    }
    assert!(sent > 0, "some requests were made in time");
    until("all went back", async || in_use(&set) == 0).await.unwrap();
}

#[tokio::test]
async fn a_session_that_has_ended_has_nothing_to_cancel() {
    let (cluster, set) = fixture(0).await;
    let conn = set.write().await.unwrap();
    let handle = conn.cancel_handle();
    let (pid, name) = (backend(&conn).await, conn.node().to_owned());
    cluster.primary().execute(&format!("SELECT pg_terminate_backend({pid})")).await.unwrap();
    until("it is lost", async || conn.is_closed()).await.unwrap();
    let error = handle.cancel().await.expect_err("it has ended");
    assert!(matches!(&error, CancelError::Ended { node } if *node == name), "{error}");
    drop((conn, set));
    assert!(matches!(handle.cancel().await, Err(CancelError::Returned)), "the handle keeps no set");
}
