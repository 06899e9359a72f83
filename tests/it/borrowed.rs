//! A caller's own connection as a `Conn`: what is restored, and when.

mod transactions;

use pointsman::testkit::wait::until;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use std::{future, mem};

use diesel::result::{DatabaseErrorKind, Error};
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use futures_util::FutureExt;
use pointsman::prelude::*;
use pointsman::testkit::Cluster;
use pointsman::{CancelError, Role};
use tokio::time::timeout;

use crate::support::{backend, connect, pools_of, start, start_cluster, value};

diesel::table! {
    notes (id) {
        id -> Integer,
        text -> Text,
    }
}

/// A repository, as a program has it.
trait Notes<I: Intent> {
    async fn count(&self) -> QueryResult<i64>;
    async fn add(&self, id: i32) -> QueryResult<usize>
    where
        I: Writable;
}

impl<I: Intent> Notes<I> for Conn<I> {
    async fn count(&self) -> QueryResult<i64> {
        notes::table.count().get_result(self.as_read()).await
    }

    async fn add(&self, id: i32) -> QueryResult<usize>
    where
        I: Writable,
    {
        let note = (notes::id.eq(id), notes::text.eq("x"));
        diesel::insert_into(notes::table).values(note).execute(self.as_write()).await
    }
}

async fn count(conn: &Conn<Read>) -> QueryResult<i64> {
    notes::table.count().get_result(conn).await
}

async fn add(conn: &Conn<Write>, id: i32) -> QueryResult<usize> {
    conn.add(id).await
}

/// It needs the connection exclusively, because it opens a transaction.
async fn add_both(conn: &mut Conn<Write>, ids: [i32; 2]) -> QueryResult<()> {
    conn.transaction(async |tx| {
        tx.add(ids[0]).await?;
        tx.add(ids[1]).await.map(drop)
    })
    .await
}

/// Both queries see the same moment.
async fn count_twice(conn: &mut Conn<Read>) -> QueryResult<(i64, i64)> {
    conn.build_transaction().repeatable_read().run(async |tx| Ok((count(tx).await?, count(tx).await?))).await
}

/// A server with a table, and a connection to it that no set knows.
async fn fixture() -> (Cluster, AsyncPgConnection) {
    let cluster = start_cluster(0).await;
    cluster.primary().execute("CREATE TABLE notes (id int PRIMARY KEY, text text)").await.expect("a table");
    let conn = AsyncPgConnection::establish(&cluster.primary().url()).await.expect("a connection");
    (cluster, conn)
}

/// Returns the committed notes.
async fn committed(cluster: &Cluster) -> String {
    let sql = "SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM notes";
    cluster.primary().query_value(sql).await.expect("notes")
}

async fn backend_of(conn: &mut AsyncPgConnection) -> String {
    backend(&Conn::<Read>::borrow_from(conn)).await
}

/// The caller gets the connection back without a running statement or transaction, and above all without a COMMIT.
async fn assert_fails(conn: &mut AsyncPgConnection) {
    assert!(conn.batch_execute("SELECT 1").await.is_err());
    let transaction = conn.transaction(async |_| Ok::<_, Error>(())).await;
    assert!(matches!(transaction, Err(Error::BrokenTransactionManager)), "{transaction:?}");
}

async fn assert_ends(cluster: &Cluster, backend: &str) {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {backend}");
    let sql = &sql;
    until("the session ends", async || cluster.primary().query_value(sql).await.unwrap() == "0")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_test_transaction_rolls_back_what_moved_functions_wrote() {
    let (cluster, mut conn) = fixture().await;
    conn.begin_test_transaction().await.unwrap();
    add(&Conn::borrow_from(&mut conn), 1).await.unwrap();
    add_both(&mut Conn::borrow_from(&mut conn), [2, 3]).await.unwrap();
    let taken = add_both(&mut Conn::borrow_from(&mut conn), [4, 1]).await;
    assert!(matches!(taken, Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _))), "{taken:?}");
    assert_eq!(count(&Conn::borrow_from(&mut conn)).await, Ok(3), "the savepoint took 4 back");

    let repository = Conn::<Write>::borrow_from(&mut conn);
    repository.add(5).await.unwrap();
    assert_eq!(repository.count().await, Ok(4));
    assert_eq!(count(repository.as_read()).await, Ok(4));
    drop(repository);
    let reader = Conn::<Read>::borrow_from(&mut conn);
    assert_eq!(reader.count().await, Ok(4));
    drop(reader);

    // The caller goes on with the connection as it was.
    let left = diesel_async::RunQueryDsl::get_result(notes::table.count(), &mut conn).await;
    assert_eq!(left, Ok(4_i64));
    drop(conn);
    assert_eq!(committed(&cluster).await, "");
}

#[tokio::test]
async fn a_transaction_of_diesel_async_commits_what_moved_functions_wrote() {
    let (cluster, mut conn) = fixture().await;
    let outer = conn
        .transaction(async |conn| {
            add(&Conn::borrow_from(conn), 1).await?;
            add_both(&mut Conn::borrow_from(conn), [2, 3]).await?;
            count(&Conn::borrow_from(conn)).await
        })
        .await;
    assert_eq!(outer, Ok(3));
    assert_eq!(committed(&cluster).await, "1,2,3");
    assert_eq!(count_twice(&mut Conn::borrow_from(&mut conn)).await, Ok((3, 3)));
}

#[tokio::test]
async fn a_borrowed_connection_reports_that_no_set_knows_it() {
    let (_cluster, mut conn) = fixture().await;
    let borrowed = Conn::<Write>::borrow_from(&mut conn);
    borrowed.add(1).await.unwrap();
    borrowed.add(1).await.unwrap_err();
    assert_eq!((borrowed.node(), borrowed.role()), ("unmanaged", Role::Unmanaged));
    assert_eq!(borrowed.last_sqlstate(), None);
    assert!(!borrowed.is_closed());
    assert!(matches!(borrowed.cancel_handle().cancel().await, Err(CancelError::Unmanaged)));
}

#[tokio::test]
async fn a_panic_and_a_cancelled_statement_put_the_borrowed_connection_back() {
    let (_cluster, mut conn) = fixture().await;
    let before = backend_of(&mut conn).await;
    let panicked = async {
        let borrowed = Conn::<Write>::borrow_from(&mut conn);
        borrowed.add(1).await.unwrap();
        panic!("on purpose");
    };
    assert!(AssertUnwindSafe(panicked).catch_unwind().await.is_err());
    assert_eq!(backend_of(&mut conn).await, before);

    let slow = async {
        let borrowed = Conn::<Read>::borrow_from(&mut conn);
        value(&borrowed, "SELECT pg_sleep(0.5)").await
    };
    assert!(timeout(Duration::from_millis(100), slow).await.is_err());
    assert_eq!(backend_of(&mut conn).await, before);
}

#[tokio::test]
async fn a_cancelled_transaction_ends_the_session_and_leaves_nothing_behind() {
    let (cluster, mut conn) = fixture().await;
    let before = backend_of(&mut conn).await;
    let outer = conn
        .transaction(async |conn| {
            let mut borrowed = Conn::<Write>::borrow_from(conn);
            borrowed.add(1).await?;
            let never = borrowed.transaction(async |tx| {
                tx.add(2).await?;
                future::pending::<QueryResult<()>>().await
            });
            assert!(timeout(Duration::from_millis(100), never).await.is_err());
            assert!(borrowed.is_closed());
            assert!(matches!(borrowed.count().await, Err(Error::BrokenTransactionManager)));
            drop(borrowed);
            // The caller would think that 3 was added inside its own transaction.
            let added = diesel::insert_into(notes::table).values((notes::id.eq(3), notes::text.eq("x")));
            assert!(diesel_async::RunQueryDsl::execute(added, conn).await.is_err());
            QueryResult::Ok(())
        })
        .await;
    assert!(
        matches!(outer, Err(Error::BrokenTransactionManager)),
        "it must not be taken for committed: {outer:?}"
    );
    assert_fails(&mut conn).await;
    assert_ends(&cluster, &before).await;
    assert_eq!(committed(&cluster).await, "");
}

/// Statements that run on the guard later would be rolled back with the transaction whose future was leaked.
#[tokio::test]
async fn a_leaked_transaction_ends_the_session_as_well() {
    let (cluster, mut conn) = fixture().await;
    let before = backend_of(&mut conn).await;
    let mut borrowed = Conn::<Write>::borrow_from(&mut conn);
    let mut leaked = Box::pin(borrowed.transaction(async |tx| {
        tx.add(1).await?;
        future::pending::<QueryResult<()>>().await
    }));
    assert!(timeout(Duration::from_millis(500), leaked.as_mut()).await.is_err());
    mem::forget(leaked);
    assert!(matches!(borrowed.add(2).await, Err(Error::BrokenTransactionManager)));
    assert!((**borrowed).batch_execute("SELECT 1").await.is_err(), "the bare connection fails as well");
    drop(borrowed);
    assert_fails(&mut conn).await;
    assert_ends(&cluster, &before).await;
    assert_eq!(committed(&cluster).await, "");
}

#[tokio::test]
async fn a_leaked_guard_leaves_a_connection_that_only_fails() {
    let (cluster, mut conn) = fixture().await;
    let outer = conn
        .transaction(async |conn| {
            let borrowed = Conn::<Write>::borrow_from(conn);
            borrowed.add(1).await?;
            mem::forget(borrowed);
            QueryResult::Ok(())
        })
        .await;
    assert!(matches!(outer, Err(Error::BrokenTransactionManager)), "{outer:?}");
    assert_fails(&mut conn).await;
    assert_eq!(committed(&cluster).await, "");
}

#[tokio::test]
async fn only_a_borrowed_connection_is_put_back() {
    let (cluster, mut conn) = fixture().await;
    let mut other = AsyncPgConnection::establish(&cluster.primary().url()).await.unwrap();
    let mut first = Conn::<Write>::borrow_from(&mut conn);
    let mut second = Conn::<Write>::borrow_from(&mut other);
    mem::swap(&mut *first, &mut *second);
    drop((first, second));
    assert_fails(&mut conn).await;
    assert_fails(&mut other).await;

    // Neither does a connection of a set leave it this way.
    let set = connect(&cluster).await;
    let mut lent = AsyncPgConnection::establish(&cluster.primary().url()).await.unwrap();
    let mut pooled = set.write().await.unwrap();
    let mut borrowed = Conn::<Write>::borrow_from(&mut lent);
    let (of_set, of_test) = (backend(&pooled).await, backend(&borrowed).await);
    mem::swap(&mut *borrowed, &mut pooled);
    assert_eq!((backend(&borrowed).await, backend(&pooled).await), (of_set, of_test.clone()));
    drop(borrowed);
    assert_fails(&mut lent).await;
    drop(pooled);
    assert_ends(&cluster, &of_test).await;
    set.write().await.unwrap().add(1).await.unwrap();
}

#[tokio::test]
async fn an_owned_connection_ends_with_its_conn() {
    let (cluster, mut conn) = fixture().await;
    let before = backend_of(&mut conn).await;
    let owned = Conn::<Write>::from_connection(conn);
    owned.add(1).await.unwrap();
    assert_eq!(owned.into_read().count().await, Ok(1));
    assert_ends(&cluster, &before).await;
    assert_eq!(committed(&cluster).await, "1");
}

#[tokio::test]
async fn the_bare_connection_of_a_set_is_lent_as_any_other() {
    let (cluster, _conn) = fixture().await;
    let set = start(crate::support::builder_of(cluster.servers()).pool(pools_of(1))).await;
    let mut conn = set.write().await.unwrap();
    let before = backend(&conn).await;
    assert_eq!(backend(&Conn::<Read>::borrow_from(&mut conn)).await, before);
    drop(conn);

    let mut conn = set.write().await.unwrap();
    assert_eq!(backend(&conn).await, before, "it went back to the pool");
    mem::forget(Conn::<Write>::borrow_from(&mut conn));
    drop(conn);
    let conn = set.write().await.unwrap();
    assert_ne!(backend(&conn).await, before, "one that only fails has no next user");
    conn.add(1).await.unwrap();
}

#[tokio::test]
async fn a_writer_that_becomes_a_reader_keeps_its_session() {
    let (cluster, _conn) = fixture().await;
    let set = start(crate::support::builder_of(cluster.servers()).pool(pools_of(1))).await;
    let conn = set.write().await.unwrap();
    conn.add(1).await.unwrap();
    let before = backend(&conn).await;
    let reader: Conn<Read> = conn.into_read();
    assert_eq!((reader.count().await, backend(&reader).await), (Ok(1), before.clone()));
    assert_eq!(reader.role(), Role::Primary);
    drop(reader);
    assert_eq!(backend(&set.write().await.unwrap()).await, before, "it went back to the pool of writers");
    assert_eq!(crate::support::in_use(&set), 0);
}

/// The node of a repeated read is that of the connection that it was given.
#[tokio::test]
async fn a_function_of_run_read_may_put_its_own_connection_into_its_conn() {
    let (cluster, conn) = fixture().await;
    let set = connect(&cluster).await;
    let slot = std::sync::Arc::new(tokio::sync::Mutex::new(Some(conn)));
    let read: Result<i64, pointsman::Error> = set
        .run_read(async move |conn| {
            if let Some(own) = slot.lock().await.take() {
                *conn = Conn::from_connection(own);
            }
            Ok(count(conn).await?)
        })
        .await;
    assert_eq!(read.unwrap(), 0);
}
