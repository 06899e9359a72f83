//! Futures that are polled and leaked: they affect no later statement, and not the next user.

use pointsman::testkit::wait::until;
use std::future::{Future, pending, poll_fn};
use std::mem::forget;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use diesel::result::Error;
use diesel_async::{AsyncConnection, SimpleAsyncConnection};
use futures_util::StreamExt;
use pointsman::config::TimeoutSettings;
use pointsman::prelude::*;
use tokio::time::timeout;

use super::{add, assert_clean, committed, fixture, notes};
use crate::support::{backend, builder_of, in_use, pools_of, sessions, start, start_cluster, value};

fn broken<T: std::fmt::Debug>(outcome: QueryResult<T>) {
    assert!(matches!(outcome, Err(Error::BrokenTransactionManager)), "{outcome:?}");
}

/// Polls a future for a while, and leaks it.
async fn leak<'f, T>(future: impl Future<Output = T> + Send + 'f) {
    let mut future: Pin<Box<dyn Future<Output = T> + Send + 'f>> = Box::pin(future);
    assert!(timeout(Duration::from_millis(100), future.as_mut()).await.is_err(), "it should be under way");
    forget(future);
}

/// Polls a future once, and leaks it.
async fn leak_at_once<'f, T>(future: impl Future<Output = T> + Send + 'f) {
    let mut future: Pin<Box<dyn Future<Output = T> + Send + 'f>> = Box::pin(future);
    poll_fn(|context| {
        assert!(future.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
    forget(future);
}

/// Its statements returned `Ok`, and were rolled back when the `Conn` was returned.
#[tokio::test]
async fn a_leaked_transaction_makes_its_conn_unusable() {
    let (cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    leak(conn.transaction(async |tx| {
        add(tx, 1).await?;
        pending::<QueryResult<()>>().await
    }))
    .await;
    broken(add(&conn, 2).await);
    broken(conn.transaction(async |tx| add(tx, 3).await).await);
    broken(conn.build_transaction().run(async |tx| add(tx, 4).await).await);
    broken(notes::table.count().get_result::<i64>(conn.as_read()).await);
    assert!(conn.is_closed());
    drop(conn);
    assert_clean(&set).await;
    assert_eq!(committed(&cluster).await, "");
}

#[tokio::test]
async fn a_leaked_transaction_makes_its_conn_unusable_if_the_bare_connection_is_used_first() {
    let (cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    leak(conn.transaction(async |tx| {
        add(tx, 1).await?;
        pending::<QueryResult<()>>().await
    }))
    .await;
    let raw = conn.batch_execute("INSERT INTO notes VALUES (2, 'past the types')").await;
    assert!(raw.is_err(), "{raw:?}");
    drop(conn);
    assert_clean(&set).await;
    assert_eq!(committed(&cluster).await, "");
}

#[tokio::test]
async fn a_transaction_that_is_leaked_before_it_begins_makes_its_conn_unusable() {
    let (cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    leak_at_once(conn.transaction(async |tx| add(tx, 1).await)).await;
    broken(add(&conn, 2).await);
    drop(conn);
    assert_clean(&set).await;
    assert_eq!(committed(&cluster).await, "");
}

#[tokio::test]
async fn a_leaked_inner_transaction_fails_the_outer_one() {
    let (cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    let outer: QueryResult<()> = conn
        .transaction(async |tx| {
            add(tx, 1).await?;
            leak(tx.transaction(async |tx| {
                add(tx, 2).await?;
                pending::<QueryResult<()>>().await
            }))
            .await;
            broken(add(tx, 3).await);
            Ok(())
        })
        .await;
    assert!(outer.is_err(), "its savepoint was not released: {outer:?}");
    drop(conn);
    assert_clean(&set).await;
    assert_eq!(committed(&cluster).await, "");

    // Also if the function does not touch the connection again.
    let mut conn = set.write().await.unwrap();
    let outer: QueryResult<()> = conn
        .transaction(async |tx| {
            leak(tx.transaction(async |tx| {
                add(tx, 4).await?;
                pending::<QueryResult<()>>().await
            }))
            .await;
            Ok(())
        })
        .await;
    broken(outer);
    drop(conn);
    assert_clean(&set).await;
    assert_eq!(committed(&cluster).await, "");
}

/// A read transaction, and a returned `Conn` that was not used after the leak.
#[tokio::test]
async fn a_session_with_a_leaked_transaction_is_not_reused() {
    let (_cluster, set) = fixture().await;
    let mut conn = set.read().await.unwrap();
    let before = backend(&conn).await;
    leak(conn.transaction(async |_| pending::<QueryResult<()>>().await)).await;
    drop(conn);
    let mut conn = set.read().await.unwrap();
    assert_ne!(backend(&conn).await, before);
    conn.transaction(async |tx| value(tx, "SELECT 1").await).await.unwrap();
}

/// The function may be any that returns a future, so its work before that counts as well.
#[tokio::test]
async fn work_that_starts_before_the_first_poll_of_the_function_is_part_of_the_transaction() {
    let (cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    fn begin_with(tx: &mut Conn<Write>) -> Pin<Box<dyn Future<Output = QueryResult<usize>> + Send + '_>> {
        // `execute` uses the connection when it is called.
        let added =
            diesel::insert_into(notes::table).values((notes::id.eq(1), notes::text.eq("x"))).execute(&*tx);
        Box::pin(added)
    }
    let added: QueryResult<usize> = conn.transaction(begin_with).await;
    assert_eq!(added.unwrap(), 1);
    let both: QueryResult<()> = conn
        .transaction(async |tx| {
            // Pipelined, and through a view.
            let (one, other) = futures_util::join!(add(tx, 2), value(tx.as_read(), "SELECT 1"));
            one.and(other.map(drop))?;
            tx.transaction(async |tx| tx.transaction(async |tx| add(tx, 3).await).await).await?;
            add(tx, 4).await.map(drop)
        })
        .await;
    both.unwrap();
    assert_eq!(committed(&cluster).await, "1,2,3,4");
}

/// The next user's transaction panicked, or its statements waited for ever.
#[tokio::test]
async fn a_leaked_statement_does_not_reach_the_next_user() {
    let (_cluster, set) = fixture().await;
    let slow = || diesel::sql_query("SELECT pg_sleep(600)");
    for round in 0..3 {
        let mut conn = set.write().await.unwrap();
        let before = backend(&conn).await;
        match round {
            // Not polled at all.
            0 => forget(slow().execute(&conn)),
            // While it is being prepared, which locks the cache of statements.
            1 => leak_at_once(slow().execute(&conn)).await,
            _ => leak(slow().execute(&conn)).await,
        }
        if round == 0 {
            broken(conn.transaction(async |tx| add(tx, 1).await).await);
        }
        drop(conn);
        let conn = timeout(Duration::from_secs(20), set.write()).await.unwrap().unwrap();
        assert_ne!(timeout(Duration::from_secs(20), backend(&conn)).await.unwrap(), before, "round {round}");
        drop(conn);
        assert_clean(&set).await;
    }
}

/// The same for a statement on the bare connection, which cannot be counted.
#[tokio::test]
async fn a_leaked_statement_of_diesel_async_does_not_reach_the_next_user() {
    let (_cluster, set) = fixture().await;
    for polled in [false, true] {
        let mut conn = set.write().await.unwrap();
        let before = backend(&conn).await;
        let statement = diesel_async::RunQueryDsl::execute(diesel::sql_query("SELECT 1"), &mut *conn);
        if polled {
            leak_at_once(statement).await;
        } else {
            forget(statement);
        }
        drop(conn);
        let conn = timeout(Duration::from_secs(20), set.write()).await.unwrap().unwrap();
        assert_ne!(timeout(Duration::from_secs(20), backend(&conn)).await.unwrap(), before);
        drop(conn);
        assert_clean(&set).await;
    }
}

/// A statement cannot tell it from a transaction that the user began by hand, so later ones run inside it; no next
/// user does.
#[tokio::test]
async fn a_leaked_transaction_of_diesel_async_ends_with_its_conn() {
    let (cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    leak(AsyncConnection::transaction(&mut *conn, async |bare| {
        bare.batch_execute("INSERT INTO notes VALUES (1, 'x')").await?;
        pending::<QueryResult<()>>().await
    }))
    .await;
    add(&conn, 2).await.unwrap();
    drop(conn);
    assert_clean(&set).await;
    assert_eq!(committed(&cluster).await, "");
}

#[tokio::test]
async fn a_leaked_stream_does_not_reach_the_next_user() {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::Integer)]
        n: i32,
    }
    let (_cluster, set) = fixture().await;
    let conn = set.write().await.unwrap();
    let million = diesel::sql_query("SELECT n FROM generate_series(1, 1000000) AS n");
    let mut rows = million.load_stream::<Row>(&conn).await.unwrap();
    assert_eq!(rows.next().await.unwrap().unwrap().n, 1);
    forget(rows);
    drop(conn);
    assert_clean(&set).await;
}

/// As in every pool. `close` and the other intent's connections are not held up.
#[tokio::test]
async fn a_leaked_conn_counts_against_the_pool_and_blocks_no_other() {
    let cluster = start_cluster(0).await;
    let timeouts = TimeoutSettings { shutdown: Duration::from_millis(100), ..TimeoutSettings::default() };
    let set = start(builder_of(cluster.servers()).pool(pools_of(2)).timeouts(timeouts)).await;
    forget(set.read().await.unwrap());
    leak(set.run_read(async |_| pending::<Result<(), pointsman::Error>>().await)).await;
    assert_clean(&set).await;
    assert_eq!(in_use(&set), 2);
    let closed = timeout(Duration::from_secs(20), set.close()).await.expect("an end");
    assert!(matches!(closed, Err(pointsman::Error::Close { connections: 2, .. })), "{closed:?}");
    until("their sessions end with the set", async || sessions(cluster.primary(), "pointsman").await == 0)
        .await
        .unwrap();
}
