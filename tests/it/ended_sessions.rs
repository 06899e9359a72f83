//! Sessions that the server or the network ends: the connection is closed once its user gets the error.

use futures_util::future::join_all;
use pointsman::SqlState;
use pointsman::testkit::Cluster;
use pointsman::testkit::wait::until;

use crate::support::{
    backend, connect, patient_probes, pools_of, smuggle, start, start_cluster, urls_of, value,
};

/// tokio-postgres fails its client before it drops the stream. The error "connection closed" reached the caller while
/// `is_closed()` was still `false`, so `run_read` took it for the caller's own error.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_connection_that_is_cut_counts_as_lost_when_its_statement_fails() {
    let cluster = Cluster::builder().proxied().start().await.unwrap();
    let url = cluster.primary().proxied_url().await.unwrap();
    let proxy = cluster.primary().proxy().await.unwrap();
    let set = start(urls_of([url]).pool(pools_of(20)).probe(patient_probes())).await;
    let (mut cut, mut not_lost) = (0, 0);
    for _ in 0..4 {
        let mut conns = Vec::new();
        for _ in 0..20 {
            conns.push(set.write().await.unwrap());
        }
        let work = conns.into_iter().map(|conn| {
            tokio::spawn(async move {
                // Until the connection is cut: in the middle of a statement, or between two.
                while value(&conn, "SELECT 1").await.is_ok() {}
                conn.is_closed()
            })
        });
        let work: Vec<_> = work.collect();
        tokio::task::yield_now().await;
        proxy.reset().await.unwrap();
        for lost in join_all(work).await {
            cut += 1;
            not_lost += u32::from(!lost.unwrap());
        }
        until("the node is back", async || set.write().await.is_ok()).await.unwrap();
    }
    assert_eq!((cut, not_lost), (80, 0), "cut, and not known as lost");
}

/// 25P03, 57P05 and 57P04 were not known to end a session.
#[tokio::test]
async fn a_session_that_the_server_ends_counts_as_lost_when_its_statement_fails() {
    let cluster = start_cluster(0).await;
    let primary = cluster.primary();
    let set = connect(&cluster).await;
    for (limit, code) in [
        ("BEGIN; SET idle_in_transaction_session_timeout = 20", b"25P03"),
        ("SET idle_session_timeout = 20", b"57P05"),
    ] {
        let conn = set.write().await.unwrap();
        let pid = backend(&conn).await;
        // One after the other, and without a message in between, so that the next statement finds the error.
        for sql in limit.split("; ") {
            smuggle(&conn, sql).await.unwrap();
        }
        until("the server ends the session", async || {
            let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
            primary.query_value(&sql).await.unwrap() == "0"
        })
        .await
        .unwrap();
        value(&conn, "SELECT 1").await.expect_err("the session has ended");
        assert!(conn.is_closed(), "{limit}");
        assert_eq!(conn.last_sqlstate(), Some(SqlState::new(*code)), "{limit}");
    }
    let conn = set.write().await.unwrap();
    value(&conn, "SELECT pg_sleep(9) FROM pg_terminate_backend(pg_backend_pid())")
        .await
        .expect_err("it ends itself");
    assert!(conn.is_closed());
}
