//! Futures that are dropped in the middle never harm the next user of a connection.

use pointsman::testkit::wait::until;
use std::future::{Future, pending};
use std::time::Duration;

use diesel::result::Error;
use diesel_async::{AsyncConnection, SimpleAsyncConnection};
use futures_util::StreamExt;
use pointsman::prelude::*;
use pointsman::testkit::Server;
use tokio::time::timeout;

use super::{add, assert_clean, committed, fixture, notes, proxied_fixture};
use crate::support::{backend, in_use, sessions, value};

/// Long enough for a statement to be under way.
const A_MOMENT: Duration = Duration::from_millis(100);

async fn cancel<T>(future: impl Future<Output = T>) {
    assert!(timeout(A_MOMENT, future).await.is_err(), "it should have been under way");
}

fn broken<T: std::fmt::Debug>(outcome: QueryResult<T>) {
    assert!(matches!(outcome, Err(Error::BrokenTransactionManager)), "{outcome:?}");
}

/// The error of a `Conn` after its transaction was cancelled.
async fn assert_over(conn: &mut Conn<Write>) {
    assert!(conn.is_closed());
    broken(add(conn, 90).await);
    broken(conn.transaction(async |tx| add(tx, 91).await).await);
    broken(conn.build_transaction().serializable().run(async |tx| add(tx, 92).await).await);
    broken(notes::table.count().get_result::<i64>(conn.as_read()).await);
    let raw = conn.batch_execute("INSERT INTO notes VALUES (93, 'past the types')").await;
    assert!(raw.is_err(), "the connection itself is over");
}

/// Checks that nothing of the set runs or waits at the server.
async fn all_idle(server: &Server) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle'";
    until("no session of the set is left at work", async || server.query_value(sql).await.unwrap() == "0")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_transaction_that_is_cancelled_between_two_statements_ends_its_session() {
    let (cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    let outcome = conn.transaction(async |tx| {
        add(tx, 1).await?;
        pending::<QueryResult<()>>().await
    });
    cancel(outcome).await;
    assert_over(&mut conn).await;
    drop(conn);
    assert_clean(&set).await;
    all_idle(cluster.primary()).await;
    assert_eq!(committed(&cluster).await, "");
}

#[tokio::test]
async fn a_cancelled_nested_transaction_ends_the_session_of_the_outer_one() {
    let (cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    let outcome: QueryResult<()> = conn
        .transaction(async |tx| {
            add(tx, 1).await?;
            let inner = tx.transaction(async |tx| {
                add(tx, 2).await?;
                pending::<QueryResult<()>>().await
            });
            assert!(timeout(A_MOMENT, inner).await.is_err());
            Ok(())
        })
        .await;
    assert!(outcome.is_err(), "the outer one cannot commit what is left of it");
    assert_over(&mut conn).await;
    drop(conn);
    assert_clean(&set).await;
    assert_eq!(committed(&cluster).await, "");
}

#[tokio::test]
async fn a_transaction_that_is_cancelled_during_a_statement_ends_its_session() {
    let (cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    let outcome = conn.transaction(async |tx| {
        add(tx, 1).await?;
        diesel::sql_query("SELECT pg_sleep(600)").execute(tx).await
    });
    cancel(outcome).await;
    assert_over(&mut conn).await;
    drop(conn);
    assert_clean(&set).await;
    assert_eq!(committed(&cluster).await, "");
}

#[tokio::test]
async fn a_transaction_that_is_cancelled_during_begin_ends_its_session() {
    let (cluster, set) = proxied_fixture().await;
    let proxy = cluster.primary().proxy().await.unwrap();
    for builder in [false, true] {
        let mut conn = set.write().await.unwrap();
        proxy.stall().await.unwrap();
        let insert = async |tx: &mut Conn<Write>| add(tx, 1).await;
        if builder {
            cancel(conn.build_transaction().serializable().run(insert)).await;
        } else {
            cancel(conn.transaction(insert)).await;
        }
        proxy.pass().await.unwrap();
        assert_over(&mut conn).await;
        drop(conn);
        assert_clean(&set).await;
    }
    assert_eq!(committed(&cluster).await, "");
}

#[tokio::test]
async fn a_transaction_that_is_cancelled_during_commit_ends_its_session() {
    let (cluster, set) = proxied_fixture().await;
    let proxy = cluster.primary().proxy().await.unwrap();
    let mut conn = set.write().await.unwrap();
    let outcome = conn.transaction(async |tx| {
        add(tx, 1).await?;
        proxy.stall().await.map_err(|_| Error::RollbackTransaction)
    });
    cancel(outcome).await;
    proxy.pass().await.unwrap();
    assert_over(&mut conn).await;
    drop(conn);
    assert_clean(&set).await;
    let committed = committed(&cluster).await;
    assert!(["", "1"].contains(&committed.as_str()), "the outcome is open, and nothing else: {committed}");
}

/// The server was idle again, so the connection returned to its pool; but Diesel kept it as broken for ever.
#[tokio::test]
async fn a_cancelled_transaction_of_diesel_async_ends_its_session() {
    let (cluster, set) = proxied_fixture().await;
    let proxy = cluster.primary().proxy().await.unwrap();
    // In the middle.
    let mut conn = set.write().await.unwrap();
    let middle = AsyncConnection::transaction(&mut *conn, async |conn| {
        conn.batch_execute("INSERT INTO notes VALUES (1, 'x')").await?;
        pending::<QueryResult<()>>().await
    });
    cancel(middle).await;
    drop(conn);
    assert_clean(&set).await;
    // During BEGIN.
    let mut conn = set.write().await.unwrap();
    proxy.stall().await.unwrap();
    cancel(AsyncConnection::transaction(&mut *conn, async |_| Ok::<_, Error>(()))).await;
    proxy.pass().await.unwrap();
    drop(conn);
    assert_clean(&set).await;
    // During COMMIT, whose answer comes while the connection goes back.
    let mut conn = set.write().await.unwrap();
    let outcome = AsyncConnection::transaction(&mut *conn, async |conn| {
        conn.batch_execute("SELECT 1").await?;
        proxy.stall().await.map_err(|_| Error::RollbackTransaction)
    });
    cancel(outcome).await;
    proxy.pass().await.unwrap();
    drop(conn);
    assert_clean(&set).await;
    assert_eq!(committed(&cluster).await, "");
}

#[tokio::test]
async fn a_connection_with_an_open_raw_begin_is_not_reused() {
    let (cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    conn.batch_execute("BEGIN; INSERT INTO notes VALUES (1, 'x')").await.unwrap();
    drop(conn);
    assert_clean(&set).await;
    all_idle(cluster.primary()).await;
    assert_eq!(committed(&cluster).await, "");

    let mut conn = set.write().await.unwrap();
    conn.batch_execute("BEGIN").await.unwrap();
    conn.batch_execute("nonsense").await.unwrap_err();
    drop(conn);
    assert_clean(&set).await;
}

/// Ended behind Diesel's back, a transaction left Diesel believing that it goes on.
#[tokio::test]
async fn a_connection_whose_transaction_raw_sql_ended_is_not_reused() {
    let (_cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    diesel_async::AnsiTransactionManager::begin_transaction_sql(&mut *conn, "BEGIN").await.unwrap();
    conn.batch_execute("ROLLBACK").await.unwrap();
    drop(conn);
    assert_clean(&set).await;
}

#[tokio::test]
async fn a_slow_query_is_cancelled_at_the_server() {
    let (cluster, set) = fixture().await;
    let conn = set.write().await.unwrap();
    let before = backend(&conn).await;
    cancel(diesel::sql_query("SELECT pg_sleep(600)").execute(&conn)).await;
    drop(conn);
    assert_eq!(in_use(&set), 0);
    assert_clean(&set).await;
    all_idle(cluster.primary()).await;
    let conn = set.write().await.unwrap();
    // A cancel request has no answer, and one that comes late ends whatever runs then: the session has no next user.
    assert_ne!(backend(&conn).await, before, "a session on which something was cancelled");
    // Both pools' connections and the monitor's: none was left behind.
    assert!(sessions(cluster.primary(), "pointsman").await <= 3);
}

#[tokio::test]
async fn results_that_were_not_read_to_their_end_do_not_reach_the_next_user() {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::Integer)]
        n: i32,
    }
    let (_cluster, set) = fixture().await;
    let million = || diesel::sql_query("SELECT n FROM generate_series(1, 1000000) AS n");
    for round in 0..20 {
        let conn = set.write().await.unwrap();
        let row: Row = million().get_result(&conn).await.unwrap();
        assert_eq!(row.n, 1);
        drop(conn);
        let conn = set.write().await.unwrap();
        assert_eq!(value(&conn, &format!("SELECT {round}")).await.unwrap(), round.to_string());
        let mut rows = Box::pin(million().load_stream::<Row>(&conn).await.unwrap());
        for n in 1..=10 {
            assert_eq!(rows.next().await.unwrap().unwrap().n, n);
        }
        drop(rows);
        drop(conn);
        let conn = set.write().await.unwrap();
        assert_eq!(
            value(&conn, &format!("SELECT -{round}")).await.unwrap().trim_start_matches('-'),
            round.to_string()
        );
    }
}

/// Also on the same `Conn`, without a pool in between.
#[tokio::test]
async fn a_dropped_read_loses_its_answer_and_nothing_else() {
    let (_cluster, set) = fixture().await;
    let conn = set.read().await.unwrap();
    for n in 0..20 {
        let slow = value(&conn, "SELECT 'slow' FROM pg_sleep(0.05)");
        let _ = timeout(Duration::from_millis(5), slow).await;
        assert_eq!(value(&conn, &format!("SELECT {n}")).await.unwrap(), n.to_string());
    }
}
