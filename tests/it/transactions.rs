//! Transactions: commits, rollbacks, and the state left for the next user.

mod cancelled;
mod exchanged;
mod leaked;
mod outcome;

use diesel::result::{DatabaseErrorKind, Error};
use diesel_async::AsyncConnection;
use pointsman::prelude::*;
use pointsman::testkit::Cluster;
use pointsman::{ReplicaSet, SqlState, TransactionFailed};

use crate::support::{builder_of, fixture_with, patient_probes, pools_of, start, urls_of, value};

diesel::table! {
    notes (id) {
        id -> Integer,
        text -> Text,
    }
}

/// One server, and pools of one connection: each user finds the state that the previous one left.
async fn fixture() -> (Cluster, ReplicaSet) {
    fixture_with(0, NOTES, |config| config.pool(pools_of(1))).await
}

/// As [`fixture`], with a proxy between the set and the server.
async fn proxied_fixture() -> (Cluster, ReplicaSet) {
    let cluster = Cluster::builder().proxied().start().await.unwrap();
    cluster.primary().execute(NOTES).await.unwrap();
    let url = cluster.primary().proxied_url().await.unwrap();
    let set = start(urls_of([url]).pool(pools_of(1)).probe(patient_probes())).await;
    drop(set.write().await.unwrap());
    (cluster, set)
}

const NOTES: &str = "CREATE TABLE notes (id int PRIMARY KEY, text text)";

async fn add<I: Writable>(conn: &Conn<I>, id: i32) -> QueryResult<usize> {
    diesel::insert_into(notes::table)
        .values((notes::id.eq(id), notes::text.eq("x")))
        .execute(conn.as_write())
        .await
}

/// Returns the committed notes.
async fn committed(cluster: &Cluster) -> String {
    let sql = "SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM notes";
    cluster.primary().query_value(sql).await.expect("notes")
}

/// The next user of the pool's only connection finds it like a new one, and can use all of it.
async fn assert_clean(set: &ReplicaSet) {
    let mut conn = set.write().await.expect("a connection");
    assert_eq!(conn.last_sqlstate(), None);
    assert_eq!(value(&conn, "SELECT pg_current_xact_id_if_assigned() IS NULL").await.unwrap(), "true");
    let level: QueryResult<String> = conn
        .build_transaction()
        .serializable()
        .run(async |tx| value(tx, "SELECT current_setting('transaction_isolation')").await)
        .await;
    assert_eq!(level.unwrap(), "serializable", "a separate transaction, not a savepoint");
}

#[tokio::test]
async fn a_transaction_commits_after_ok_and_rolls_back_after_err() {
    let (cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    let kept: QueryResult<usize> = conn.transaction(async |tx| add(tx, 1).await).await;
    assert_eq!(kept.unwrap(), 1);
    let dropped: QueryResult<()> = conn
        .transaction(async |tx| {
            add(tx, 2).await?;
            Err(Error::RollbackTransaction)
        })
        .await;
    assert!(matches!(dropped, Err(Error::RollbackTransaction)));
    assert_eq!(committed(&cluster).await, "1");
    drop(conn);
    assert_clean(&set).await;
}

#[tokio::test]
async fn a_failed_inner_transaction_leaves_the_outer_one_usable() {
    let (cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    let outer: QueryResult<()> = conn
        .transaction(async |tx| {
            add(tx, 1).await?;
            let inner: QueryResult<usize> = tx
                .transaction(async |tx| {
                    add(tx, 2).await?;
                    add(tx, 1).await
                })
                .await;
            assert!(matches!(inner, Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _))));
            let nested: QueryResult<usize> =
                tx.transaction(async |tx| tx.transaction(async |tx| add(tx, 3).await).await).await;
            nested?;
            add(tx, 4).await.map(drop)
        })
        .await;
    outer.unwrap();
    assert_eq!(committed(&cluster).await, "1,3,4");
}

#[tokio::test]
async fn a_failed_outer_transaction_rolls_back_the_inner_ones() {
    let (cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    let outer: QueryResult<()> = conn
        .transaction(async |tx| {
            let inner: QueryResult<usize> = tx.transaction(async |tx| add(tx, 1).await).await;
            inner?;
            Err(Error::RollbackTransaction)
        })
        .await;
    assert!(outer.is_err());
    assert_eq!(committed(&cluster).await, "");
}

#[tokio::test]
async fn isolation_level_access_mode_and_deferrable_reach_the_server() {
    const SHOWN: &str = "SELECT current_setting('transaction_isolation') || ', ' \
        || current_setting('transaction_read_only') || ', ' || current_setting('transaction_deferrable')";
    let (_cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    let show = async |tx: &mut Conn<Write>| value(tx, SHOWN).await;
    let shown: [QueryResult<String>; 5] = [
        conn.transaction(show).await,
        conn.build_transaction().read_committed().read_write().run(show).await,
        conn.build_transaction().repeatable_read().run(show).await,
        conn.build_transaction().serializable().run(show).await,
        conn.build_transaction().serializable().read_only().deferrable().run(show).await,
    ];
    assert_eq!(
        shown.map(Result::unwrap),
        [
            "read committed, off, off",
            "read committed, off, off",
            "repeatable read, off, off",
            "serializable, off, off",
            "serializable, on, on"
        ]
    );
    let mut read = set.read().await.unwrap();
    let shown: QueryResult<String> =
        read.build_transaction().repeatable_read().run(async |tx| value(tx, SHOWN).await).await;
    assert_eq!(shown.unwrap(), "repeatable read, on, off");
}

#[tokio::test]
async fn the_server_refuses_a_write_that_is_read_only_and_the_client_a_nested_level() {
    let (cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    let refused: QueryResult<usize> =
        conn.build_transaction().read_only().run(async |tx| add(tx, 1).await).await;
    assert!(matches!(refused, Err(Error::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _))));
    assert_eq!(conn.last_sqlstate(), Some(SqlState::READ_ONLY_SQL_TRANSACTION));

    let outer: QueryResult<usize> = conn
        .transaction(async |tx| {
            let nested: QueryResult<usize> =
                tx.build_transaction().serializable().run(async |tx| add(tx, 1).await).await;
            assert!(matches!(nested, Err(Error::AlreadyInTransaction)), "{nested:?}");
            add(tx, 2).await
        })
        .await;
    outer.unwrap();
    assert_eq!(committed(&cluster).await, "2");
    drop(conn);
    assert_clean(&set).await;
}

#[tokio::test]
async fn a_transaction_whose_error_was_ignored_is_not_committed() {
    let (cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    let outcome: QueryResult<()> = conn
        .transaction(async |tx| {
            add(tx, 1).await?;
            let _ = add(tx, 1).await;
            Ok(())
        })
        .await;
    let error = outcome.unwrap_err();
    let failed = TransactionFailed::find(&error).expect("it says so");
    assert_eq!(failed.sqlstate, Some(SqlState::new(*b"23505")));
    assert!(matches!(pointsman::Error::from(error), pointsman::Error::TransactionFailed(_)));
    assert_eq!(committed(&cluster).await, "");

    let nested: QueryResult<()> = conn
        .transaction(async |tx| {
            tx.transaction(async |tx| {
                add(tx, 1).await?;
                let _ = add(tx, 1).await;
                Ok(())
            })
            .await
        })
        .await;
    assert!(nested.is_err(), "in a nested one neither");
    assert_eq!(committed(&cluster).await, "");
    drop(conn);
    assert_clean(&set).await;
}

#[tokio::test]
async fn diesel_async_code_runs_unchanged_on_a_write_connection() {
    async fn on_bare(conn: &mut diesel_async::AsyncPgConnection, id: i32) -> QueryResult<usize> {
        use diesel_async::RunQueryDsl;
        let values = (notes::id.eq(id), notes::text.eq("bare"));
        RunQueryDsl::execute(diesel::insert_into(notes::table).values(values), conn).await
    }
    let (cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    on_bare(&mut conn, 1).await.unwrap();
    let outcome: QueryResult<()> = AsyncConnection::transaction(&mut *conn, async |conn| {
        on_bare(conn, 2).await?;
        let inner: QueryResult<()> = conn
            .transaction(async |conn| {
                on_bare(conn, 3).await?;
                Err(Error::RollbackTransaction)
            })
            .await;
        assert!(inner.is_err());
        Ok(())
    })
    .await;
    outcome.unwrap();
    let failed: QueryResult<()> = AsyncConnection::transaction(&mut *conn, async |conn| {
        on_bare(conn, 4).await?;
        Err(Error::RollbackTransaction)
    })
    .await;
    assert!(failed.is_err());
    assert_eq!(committed(&cluster).await, "1,2");
    drop(conn);
    assert_clean(&set).await;
}

#[tokio::test]
async fn a_deadlock_has_its_sqlstate() {
    let cluster = Cluster::builder().setting("deadlock_timeout", "100ms").start().await.unwrap();
    cluster.primary().execute(NOTES).await.unwrap();
    let set = start(builder_of(cluster.servers())).await;
    let conn = set.write().await.unwrap();
    add(&conn, 1).await.unwrap();
    add(&conn, 2).await.unwrap();

    let meet = tokio::sync::Barrier::new(2);
    let lock_both = async |ids: [i32; 2]| {
        let mut conn = set.write().await.unwrap();
        let outcome: QueryResult<()> = conn
            .transaction(async |tx| {
                let touch = |id| diesel::update(notes::table.find(id)).set(notes::text.eq("touched"));
                touch(ids[0]).execute(tx).await?;
                meet.wait().await;
                touch(ids[1]).execute(tx).await.map(drop)
            })
            .await;
        (outcome, conn.last_sqlstate())
    };
    let both = tokio::join!(lock_both([1, 2]), lock_both([2, 1]));
    let (loser, winner) = if both.0.0.is_err() { both } else { (both.1, both.0) };
    assert!(loser.0.is_err() && winner.0.is_ok());
    assert_eq!((loser.1, winner.1), (Some(SqlState::DEADLOCK_DETECTED), None));
}
