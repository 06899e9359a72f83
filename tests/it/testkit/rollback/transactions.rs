//! Transactions of the application inside the one that is never committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use diesel::result::{DatabaseErrorKind, Error};
use diesel_async::SimpleAsyncConnection;
use pointsman::TransactionFailed;
use pointsman::prelude::*;

use super::{add, committed, fixture, is_unique_violation, seen};
use crate::support::{smuggle, value};

#[tokio::test]
async fn ok_is_seen_afterwards_and_err_leaves_nothing_at_every_depth() {
    let (cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    let outcome: QueryResult<()> = conn
        .transaction(async |tx| {
            add(tx, 1).await?;
            let inner = tx
                .transaction(async |tx| {
                    add(tx, 2).await?;
                    add(tx, 1).await
                })
                .await;
            assert!(is_unique_violation(&inner));
            tx.transaction(async |tx| add(tx, 3).await).await?;
            Ok(())
        })
        .await;
    outcome.unwrap();
    let outcome: QueryResult<()> = conn
        .transaction(async |tx| {
            add(tx, 4).await?;
            Err(Error::RollbackTransaction)
        })
        .await;
    outcome.unwrap_err();
    assert_eq!(seen(&set).await, [1, 3]);
    assert_eq!(committed(&cluster).await, "");
}

#[tokio::test]
async fn a_failed_transaction_cannot_be_committed_and_the_next_one_can() {
    let (_cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    let outcome: Result<(), pointsman::Error> = conn
        .transaction(async |tx| {
            add(tx, 1).await?;
            add(tx, 1).await.unwrap_err();
            smuggle(tx, "SELECT 1").await.unwrap_err();
            assert_eq!(tx.last_sqlstate().unwrap().to_string(), "23505", "what failed it");
            Ok(())
        })
        .await;
    let error = outcome.unwrap_err();
    assert!(TransactionFailed::find(&error).is_some(), "{error:?}");
    conn.transaction(async |tx| add(tx, 1).await).await.unwrap();
    assert_eq!(seen(&set).await, [1]);
}

#[tokio::test]
async fn a_conflict_is_run_again() {
    let (_cluster, set) = fixture().await;
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    set.run_write(async move |tx| -> Result<(), pointsman::Error> {
        add(tx, 1).await?;
        if counted.fetch_add(1, Ordering::Relaxed) == 0 {
            smuggle(tx, "DO $$BEGIN RAISE 'busy' USING ERRCODE = '40001'; END$$").await?;
        }
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 2);
    assert_eq!(seen(&set).await, [1]);
}

#[tokio::test]
async fn only_read_only_of_the_transaction_settings_has_an_effect() {
    let (_cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    let level: QueryResult<String> = conn
        .build_transaction()
        .serializable()
        .deferrable()
        .run(async |tx| {
            add(tx, 1).await?;
            value(tx, "SELECT current_setting('transaction_isolation')").await
        })
        .await;
    assert_eq!(level.unwrap(), "read committed");
    let refused = conn.build_transaction().read_only().run(async |tx| add(tx, 2).await).await;
    assert!(
        matches!(refused, Err(Error::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _))),
        "{refused:?}"
    );
    add(&conn, 3).await.unwrap();
    assert_eq!(seen(&set).await, [1, 3]);
}

#[tokio::test]
async fn what_a_transaction_sets_for_itself_ends_with_it() {
    let (_cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    let user = "SELECT coalesce(current_setting('app.user', true), '')";
    let limit = "SELECT current_setting('lock_timeout')";
    for _ in 0..2 {
        conn.transaction(async |tx| -> QueryResult<()> {
            smuggle(tx, "SET LOCAL lock_timeout = '7s'").await?;
            smuggle(tx, "SELECT set_config('app.user', 'ada', true)").await?;
            let nonsense = tx.transaction(async |tx| smuggle(tx, "SET LOCAL nonsense = 1").await).await;
            nonsense.unwrap_err();
            assert_eq!(value(tx, limit).await?, "7s");
            assert_eq!(value(tx, user).await?, "ada");
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(value(&conn, limit).await.unwrap(), "0");
        assert_eq!(value(&conn, user).await.unwrap(), "");
    }
}

#[tokio::test]
async fn deferred_constraints_are_checked_at_the_commit_each_time() {
    let (cluster, set) = fixture().await;
    let sql = "CREATE TABLE replies (note int REFERENCES notes DEFERRABLE INITIALLY DEFERRED, \
        second int UNIQUE DEFERRABLE INITIALLY IMMEDIATE)";
    cluster.primary().execute(sql).await.unwrap();
    let mut conn = set.write().await.unwrap();
    let is_foreign_key = |outcome: &QueryResult<usize>| {
        matches!(outcome, Err(Error::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _)))
    };
    for id in [1, 2] {
        // The child comes before its parent.
        conn.transaction(async |tx| -> QueryResult<usize> {
            smuggle(tx, &format!("INSERT INTO replies VALUES ({id}, {id})")).await?;
            add(tx, id).await
        })
        .await
        .unwrap();
        let orphan = conn.transaction(async |tx| smuggle(tx, "INSERT INTO replies VALUES (9)").await).await;
        assert!(is_foreign_key(&orphan), "{orphan:?}");
        let orphan = smuggle(&conn, "INSERT INTO replies VALUES (9)").await;
        assert!(is_foreign_key(&orphan), "also without a transaction: {orphan:?}");
        conn.transaction(async |tx| {
            let twice = smuggle(tx, &format!("INSERT INTO replies VALUES ({id}, {id})")).await;
            assert!(is_unique_violation(&twice), "at once, and not at the commit");
            QueryResult::<()>::Err(Error::RollbackTransaction)
        })
        .await
        .unwrap_err();
    }
    assert_eq!(value(&conn, "SELECT count(*) FROM replies").await.unwrap(), "2");
}

/// A COMMIT that got through would commit all of the test's work.
#[tokio::test]
async fn no_statement_of_the_application_commits_the_rollback_set() {
    let (cluster, set) = fixture().await;
    let mut conn = set.write().await.unwrap();
    add(&conn, 1).await.unwrap();
    for sql in [
        "COMMIT",
        "INSERT INTO notes VALUES (2, 'x'); /* ; */ COMMIT; INSERT INTO notes VALUES (3, 'x')",
        "BEGIN; INSERT INTO notes VALUES (4, ';'); END",
        "BEGIN; INSERT INTO notes VALUES (5, 'x'); COMMIT AND CHAIN; INSERT INTO notes VALUES (6, 'x'); ROLLBACK",
    ] {
        conn.batch_execute(sql).await.unwrap();
        assert_eq!(committed(&cluster).await, "", "{sql}");
    }
    for sql in [
        "PREPARE TRANSACTION 'a'",
        "SAVEPOINT a",
        "DO $$ BEGIN COMMIT; END $$",
        "BEGIN; PREPARE TRANSACTION 'a'; COMMIT",
        "ROLLBACK; VACUUM",
    ] {
        conn.batch_execute(sql).await.unwrap_err();
        conn.batch_execute("ROLLBACK").await.unwrap();
    }
    for sql in ["COMMIT", "ROLLBACK", "BEGIN", "PREPARE TRANSACTION 'a'"] {
        let refused = diesel::sql_query(sql).execute(&conn).await.unwrap_err();
        assert!(refused.to_string().contains("simple queries"), "{sql}: {refused}");
    }
    assert_eq!(seen(&set).await, [1, 2, 3, 4, 5]);
    drop((conn, set));
    assert_eq!(committed(&cluster).await, "");
}
