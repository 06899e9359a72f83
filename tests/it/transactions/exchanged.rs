//! A bare connection that is not the one that was dialled, and `Conn`s that changed places.

use pointsman::testkit::wait::until;
use std::mem::swap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use diesel::connection::{Instrumentation, InstrumentationEvent, set_default_instrumentation};
use diesel::result::Error;
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use pointsman::prelude::*;
use pointsman::testkit::Cluster;

use super::{NOTES, add, assert_clean, committed, fixture, notes};
use crate::support::{backend, builder_of, in_use, pools_of, sessions, smuggle, start, start_cluster, value};

fn broken<T: std::fmt::Debug>(outcome: QueryResult<T>) {
    assert!(matches!(outcome, Err(Error::BrokenTransactionManager)), "{outcome:?}");
}

/// A connection that the user opened.
async fn own(cluster: &Cluster) -> AsyncPgConnection {
    AsyncPgConnection::establish(&cluster.primary().url()).await.unwrap()
}

async fn pid(conn: &mut AsyncPgConnection) -> i32 {
    diesel::define_sql_function! { fn pg_backend_pid() -> diesel::sql_types::Integer; }
    diesel_async::RunQueryDsl::get_result(diesel::select(pg_backend_pid()), conn).await.unwrap()
}

/// Later users got a read-only session as the primary's, and their inserts returned `Ok` and were lost.
#[tokio::test]
async fn a_connection_of_the_caller_is_not_returned_to_the_pool() {
    let (cluster, set) = fixture().await;
    for open in ["SET default_transaction_read_only = on", "BEGIN", "SELECT 1"] {
        let mut foreign = own(&cluster).await;
        foreign.batch_execute(open).await.unwrap();
        let foreign_backend = pid(&mut foreign).await.to_string();
        let mut conn = set.write().await.unwrap();
        swap(&mut *conn, &mut foreign);
        drop(conn);
        let conn = set.write().await.unwrap();
        assert_ne!(backend(&conn).await, foreign_backend, "{open}");
        add(&conn, 1).await.unwrap();
        assert_eq!(committed(&cluster).await, "1", "{open}");
        smuggle(&conn, "TRUNCATE notes").await.unwrap();
        drop(conn);
        assert_clean(&set).await;
        // The session that the user took along is ended.
        until("it has ended", async || foreign.batch_execute("SELECT 1").await.is_err()).await.unwrap();
    }
    assert_eq!(in_use(&set), 0);
}

#[tokio::test]
async fn every_statement_on_an_exchanged_connection_fails() {
    let (cluster, set) = fixture().await;
    let mut foreign = own(&cluster).await;
    foreign.batch_execute("BEGIN").await.unwrap();
    let mut conn = set.write().await.unwrap();
    swap(&mut *conn, &mut foreign);
    broken(add(&conn, 1).await);
    broken(notes::table.count().get_result::<i64>(conn.as_read()).await);
    broken(conn.transaction(async |tx| add(tx, 2).await).await);
    broken(conn.build_transaction().serializable().run(async |tx| add(tx, 3).await).await);
    // Back in its pool, it is as it was.
    swap(&mut *conn, &mut foreign);
    add(&conn, 4).await.unwrap();
    conn.transaction(async |tx| add(tx, 5).await).await.unwrap();
    assert_eq!(committed(&cluster).await, "4,5");
    drop(conn);
    assert_clean(&set).await;
}

#[tokio::test]
async fn a_transaction_whose_connection_was_exchanged_is_not_committed() {
    let (cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    let mut foreign = own(&cluster).await;
    let outcome: QueryResult<()> = conn
        .transaction(async |tx| {
            add(tx, 1).await?;
            swap(&mut **tx, &mut foreign);
            broken(add(tx, 2).await);
            Ok(())
        })
        .await;
    broken(outcome);
    broken(add(&conn, 3).await);
    drop(conn);
    assert_clean(&set).await;
    assert_eq!(committed(&cluster).await, "");
}

/// A `Conn` that was assigned to has no mark anywhere, so the wire has to show that its session was used.
#[tokio::test]
async fn a_connection_that_was_replaced_for_good_is_noticed_by_the_wire() {
    let (cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    *conn = own(&cluster).await;
    broken(conn.transaction(async |tx| add(tx, 1).await).await);
    drop(conn);
    assert_clean(&set).await;

    let mut conn = set.write().await.unwrap();
    let foreign = own(&cluster).await;
    let outcome: QueryResult<()> = conn
        .transaction(async |tx| {
            add(tx, 2).await?;
            let bare: &mut AsyncPgConnection = tx;
            *bare = foreign;
            // A statement that a COMMIT without its own session could commit.
            diesel_async::AnsiTransactionManager::begin_transaction_sql(bare, "BEGIN").await
        })
        .await;
    assert!(outcome.is_err(), "{outcome:?}");
    drop(conn);
    assert_clean(&set).await;
    assert_eq!(committed(&cluster).await, "");
}

#[tokio::test]
async fn the_bare_connections_of_two_conns_that_were_exchanged_end_with_them() {
    let cluster = start_cluster(0).await;
    cluster.primary().execute(NOTES).await.unwrap();
    let set = start(builder_of(cluster.servers()).pool(pools_of(2))).await;
    let (mut one, mut other) = (set.write().await.unwrap(), set.write().await.unwrap());
    let backends = [backend(&one).await, backend(&other).await];
    swap(&mut *one, &mut *other);
    broken(add(&one, 1).await);
    broken(add(&other, 2).await);
    drop((one, other));
    let (one, other) = (set.write().await.unwrap(), set.write().await.unwrap());
    for conn in [&one, &other] {
        assert!(!backends.contains(&backend(conn).await));
    }
    assert_eq!(committed(&cluster).await, "");
}

/// Each takes its session and its pool permit along, so there is no error.
#[tokio::test]
async fn two_swapped_conns_go_on_working() {
    let cluster = start_cluster(0).await;
    cluster.primary().execute(NOTES).await.unwrap();
    let set = start(builder_of(cluster.servers()).pool(pools_of(2))).await;
    let (mut one, mut other) = (set.write().await.unwrap(), set.write().await.unwrap());
    let before = backend(&one).await;
    swap(&mut one, &mut other);
    assert_eq!(backend(&other).await, before);
    add(&one, 1).await.unwrap();
    other.transaction(async |tx| add(tx, 2).await).await.unwrap();
    drop((one, other));
    assert_eq!(committed(&cluster).await, "1,2");
    assert_eq!(sessions(cluster.primary(), "pointsman").await, 3, "the monitor's and these two");
}

#[tokio::test]
async fn a_transaction_whose_conn_was_swapped_is_not_committed() {
    let cluster = start_cluster(0).await;
    cluster.primary().execute(NOTES).await.unwrap();
    let set = start(builder_of(cluster.servers()).pool(pools_of(2))).await;
    let (mut conn, mut other) = (set.write().await.unwrap(), set.write().await.unwrap());
    let outcome: QueryResult<()> = conn
        .transaction(async |tx| {
            add(tx, 1).await?;
            swap(tx, &mut other);
            // It is outside the transaction, as its name says.
            add(tx, 2).await.map(drop)
        })
        .await;
    broken(outcome);
    // The one that came in goes on; the transaction is where its `Conn` went, and cannot be used there.
    add(&conn, 3).await.unwrap();
    broken(add(&other, 4).await);
    broken(other.transaction(async |tx| add(tx, 5).await).await);
    drop((conn, other));
    assert_eq!(committed(&cluster).await, "2,3");

    // Two transactions whose `Conn`s changed places: neither is committed on the other's session.
    let (mut one, mut other) = (set.write().await.unwrap(), set.write().await.unwrap());
    let outer: QueryResult<()> = one
        .transaction(async |one| {
            add(one, 6).await?;
            let inner: QueryResult<()> = other
                .transaction(async |other| {
                    add(other, 7).await?;
                    swap(one, other);
                    Ok(())
                })
                .await;
            broken(inner);
            Ok(())
        })
        .await;
    broken(outer);
    drop((one, other));
    until("both are over", async || in_use(&set) == 0).await.unwrap();
    assert_eq!(committed(&cluster).await, "2,3");
}

/// The old instrumentation saw the statements of all later users.
#[tokio::test]
async fn instrumentation_ends_with_the_user_who_set_it() {
    let (_cluster, set) = fixture().await;
    let seen = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&seen);
    let mut conn = set.write().await.unwrap();
    conn.set_instrumentation(move |_: InstrumentationEvent<'_>| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    add(&conn, 1).await.unwrap();
    conn.transaction(async |tx| add(tx, 2).await).await.unwrap();
    let of_the_user = seen.load(Ordering::Relaxed);
    assert!(of_the_user >= 6, "it sees its own user's: {of_the_user}");
    drop(conn);
    let mut conn = set.write().await.unwrap();
    add(&conn, 3).await.unwrap();
    conn.transaction(async |tx| add(tx, 4).await).await.unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), of_the_user);
}

/// The mark costs no session: a lent connection that comes back stays.
#[tokio::test]
async fn a_lent_connection_returns_to_the_pool() {
    let (_cluster, set) = fixture().await;
    let first = backend(&set.write().await.unwrap()).await;
    for _ in 0..3 {
        let mut conn = set.write().await.unwrap();
        assert_eq!(pid(&mut conn).await.to_string(), first);
        conn.batch_execute("SELECT 1").await.unwrap();
        let bare: QueryResult<()> =
            AsyncConnection::transaction(&mut *conn, async |bare| bare.batch_execute("SELECT 1").await).await;
        bare.unwrap();
        conn.transaction(async |tx| value(tx, "SELECT 1").await).await.unwrap();
        conn.instrumentation();
    }
    assert_eq!(backend(&set.write().await.unwrap()).await, first);
}

/// The mark passes on the events that the program's own default listens to, but not its own query.
#[tokio::test]
async fn the_programs_default_instrumentation_hears_every_statement() {
    static HEARD: AtomicU32 = AtomicU32::new(0);
    fn listener() -> Option<Box<dyn Instrumentation>> {
        Some(Box::new(|event: InstrumentationEvent<'_>| {
            if matches!(event, InstrumentationEvent::StartQuery { .. })
                && format!("{event:?}").contains("a default hears")
            {
                HEARD.fetch_add(1, Ordering::Relaxed);
            }
        }))
    }
    set_default_instrumentation(listener).unwrap();
    let (_cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    set_default_instrumentation(|| None).unwrap();
    for round in 1..=3 {
        // Lent, so that it is asked for its mark each time.
        let _: &mut AsyncPgConnection = &mut conn;
        value(&conn, "SELECT 'a default hears'").await.unwrap();
        assert_eq!(HEARD.load(Ordering::Relaxed), round);
    }
    drop(conn);
    let conn = set.write().await.unwrap();
    value(&conn, "SELECT 'a default hears'").await.unwrap();
    assert_eq!(HEARD.load(Ordering::Relaxed), 4, "the mark was renewed when it was returned");
}
