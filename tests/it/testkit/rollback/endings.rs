//! Transactions that are left half-way, connections that wait for each other, and a session that is lost.

use std::time::Duration;

use pointsman::prelude::*;
use pointsman::testkit::RollbackSet;
use tokio::time::{Instant, timeout};

use super::{add, cluster, committed, fixture, seen};
use crate::support::{backend, builder_of, checkout_within, smuggle, value};

/// Long enough for a statement to be under way.
const A_MOMENT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_transaction_that_is_dropped_is_rolled_back_alone() {
    let (cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    add(&conn, 1).await.unwrap();
    let at_work = conn.transaction(async |tx| {
        add(tx, 2).await?;
        smuggle(tx, "SELECT pg_sleep(60)").await
    });
    timeout(A_MOMENT, at_work).await.unwrap_err();
    let between = async {
        let mut conn = set.write().await.unwrap();
        let idle = conn.transaction(async |tx| {
            add(tx, 3).await?;
            std::future::pending::<QueryResult<()>>().await
        });
        timeout(A_MOMENT, idle).await
    };
    // Both end: the statement is cancelled at the server, as in production.
    between.await.unwrap_err();
    assert!(conn.is_closed(), "as in production");
    assert_eq!(seen(&set).await, [1]);
    add(&set.write().await.unwrap(), 2).await.unwrap();
    assert_eq!(seen(&set).await, [1, 2]);
    assert_eq!(committed(&cluster).await, "");
}

#[tokio::test]
async fn a_statement_that_is_dropped_is_cancelled_and_holds_up_no_other() {
    let (_cluster, set) = fixture().await;
    let conn = set.write().await.unwrap();
    timeout(A_MOMENT, smuggle(&conn, "SELECT pg_sleep(60)")).await.unwrap_err();
    drop(conn);
    let began = Instant::now();
    add(&set.write().await.unwrap(), 1).await.unwrap();
    assert_eq!(seen(&set).await, [1]);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_statement_is_cancelled_from_another_task_and_no_other_one_with_it() {
    let (_cluster, set) = fixture().await;
    let (conn, other) = (set.write().await.unwrap(), set.write().await.unwrap());
    let handle = conn.cancel_handle();
    let (refused, ()) = futures_util::join!(smuggle(&conn, "SELECT pg_sleep(60)"), async {
        tokio::time::sleep(A_MOMENT).await;
        handle.cancel().await.unwrap();
    });
    refused.unwrap_err();
    assert_eq!(conn.last_sqlstate().unwrap().to_string(), "57014");
    add(&conn, 1).await.unwrap();
    // It names the session of all, but not the statement of another connection.
    handle.cancel().await.unwrap();
    add(&other, 2).await.unwrap();
    assert_eq!(seen(&set).await, [1, 2]);
}

#[tokio::test]
async fn a_task_that_would_wait_for_its_own_transaction_gets_an_error() {
    let cluster = cluster().await;
    let limit = Duration::from_secs(1);
    let config = builder_of(cluster.servers()).timeouts(checkout_within(limit)).build().unwrap();
    let set = RollbackSet::connect(config).await.unwrap();
    let other = set.read().await.unwrap();
    let mut conn = set.write().await.unwrap();
    conn.transaction(async |tx| {
        add(tx, 1).await?;
        let refused = value(&other, "SELECT 1").await.unwrap_err();
        assert!(refused.to_string().contains("end that transaction first"), "{refused}");
        assert_eq!(other.last_sqlstate().unwrap().to_string(), "55P03");
        // A checkout that needs another connection fails with the same error.
        let began = Instant::now();
        let refused = set.write().await.unwrap_err();
        assert!(refused.to_string().contains("end that transaction first"), "{refused}");
        assert!(began.elapsed() < 5 * limit, "{:?}", began.elapsed());
        add(tx, 2).await
    })
    .await
    .unwrap();
    assert_eq!(value(&other, "SELECT 1").await.unwrap(), "1", "the connection is as good as before");
    assert_eq!(seen(&set).await, [1, 2]);
}

#[tokio::test]
async fn a_set_whose_session_was_lost_fails_and_begins_no_other_transaction() {
    let cluster = cluster().await;
    let timeouts = checkout_within(Duration::from_secs(1));
    let config = builder_of(cluster.servers()).timeouts(timeouts).build().unwrap();
    let set = RollbackSet::connect(config).await.unwrap();
    let conn = set.write().await.unwrap();
    add(&conn, 1).await.unwrap();
    let kill = format!("SELECT pg_terminate_backend({}, 5000)", backend(&conn).await);
    assert_eq!(cluster.primary().query_value(&kill).await.unwrap(), "t");
    add(&conn, 2).await.unwrap_err();
    assert!(conn.is_closed());
    drop(conn);
    for _ in 0..2 {
        let refused = set.write().await.unwrap_err();
        assert!(refused.to_string().contains("has ended"), "{refused}");
        let refused = set.read().await.unwrap_err();
        assert!(refused.to_string().contains("make another set"), "{refused}");
    }
    assert_eq!(committed(&cluster).await, "");
}
