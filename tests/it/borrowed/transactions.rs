//! The end of a transaction on a connection without a tap.

use diesel::result::{DatabaseErrorKind, Error};
use pointsman::prelude::*;
use pointsman::{OutcomeUnknown, TransactionFailed};

use super::{Notes, assert_ends, assert_fails, backend_of, committed, fixture};
use crate::support::value;

#[tokio::test]
async fn ok_after_a_failed_statement_is_an_error() {
    let (cluster, mut conn) = fixture().await;
    let mut borrowed = Conn::<Write>::borrow_from(&mut conn);
    borrowed.add(1).await.unwrap();
    let outermost: QueryResult<()> = borrowed
        .transaction(async |tx| {
            tx.add(2).await?;
            tx.add(1).await.unwrap_err();
            Ok(())
        })
        .await;
    assert!(TransactionFailed::find(&outermost.unwrap_err()).is_some());
    assert_eq!(
        committed(&cluster).await,
        "1",
        "the server would have answered the COMMIT with a silent ROLLBACK"
    );

    let outer: QueryResult<()> = borrowed
        .transaction(async |tx| {
            tx.add(3).await?;
            let inner: QueryResult<()> = tx
                .transaction(async |tx| {
                    tx.add(3).await.unwrap_err();
                    Ok(())
                })
                .await;
            assert!(TransactionFailed::find(&inner.unwrap_err()).is_some());
            tx.add(4).await.map(drop)
        })
        .await;
    outer.unwrap();
    assert_eq!(committed(&cluster).await, "1,3,4");
}

#[tokio::test]
async fn a_commit_that_the_server_refuses_has_the_server_s_error() {
    let (cluster, mut conn) = fixture().await;
    let unique = "ALTER TABLE notes ADD UNIQUE (text) DEFERRABLE INITIALLY DEFERRED";
    cluster.primary().execute(unique).await.unwrap();
    let mut borrowed = Conn::<Write>::borrow_from(&mut conn);
    let refused: QueryResult<()> = borrowed
        .transaction(async |tx| {
            tx.add(1).await?;
            tx.add(2).await.map(drop)
        })
        .await;
    assert!(
        matches!(refused, Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _))),
        "{refused:?}"
    );
    let again: QueryResult<usize> = borrowed.transaction(async |tx| tx.add(1).await).await;
    assert_eq!(again, Ok(1), "the next one is a separate transaction");
    assert_eq!(committed(&cluster).await, "1");
}

#[tokio::test]
async fn a_session_that_ends_during_the_commit_leaves_the_outcome_open() {
    let (cluster, mut conn) = fixture().await;
    cluster
        .primary()
        .execute(
            "CREATE FUNCTION fatal() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS \
             $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$; \
             CREATE CONSTRAINT TRIGGER fatal AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW WHEN (NEW.id = 2) EXECUTE FUNCTION fatal()",
        )
        .await
        .unwrap();
    let before = backend_of(&mut conn).await;
    let mut borrowed = Conn::<Write>::borrow_from(&mut conn);
    let lost: QueryResult<usize> = borrowed.transaction(async |tx| tx.add(2).await).await;
    let error = lost.unwrap_err();
    let unknown = OutcomeUnknown::find(&error).unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!((unknown.node.as_deref(), unknown.sqlstate), (None, None));
    assert!(borrowed.is_closed());
    drop(borrowed);
    assert_fails(&mut conn).await;
    assert_ends(&cluster, &before).await;
}

#[tokio::test]
async fn a_session_that_had_ended_before_the_commit_leaves_nothing_open() {
    let (cluster, mut conn) = fixture().await;
    let mut borrowed = Conn::<Write>::borrow_from(&mut conn);
    let lost: QueryResult<()> = borrowed
        .transaction(async |tx| {
            tx.add(1).await?;
            value(tx, "SELECT pg_terminate_backend(pg_backend_pid()) AND pg_sleep(5) IS NULL")
                .await
                .unwrap_err();
            Ok(())
        })
        .await;
    let error = lost.unwrap_err();
    assert!(OutcomeUnknown::find(&error).is_none(), "{error:?}");
    assert_eq!(committed(&cluster).await, "");
}
