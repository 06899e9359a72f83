//! The known and unknown outcomes of a COMMIT.

use diesel::result::{DatabaseErrorKind, Error};
use pointsman::prelude::*;
use pointsman::testkit::wait::until;
use pointsman::{OutcomeUnknown, SqlState};

use super::{NOTES, add, assert_clean, committed, fixture, proxied_fixture};
use crate::support::{backend, start, start_cluster};

#[track_caller]
fn assert_unknown(error: Error, node: &str) {
    let unknown = OutcomeUnknown::find(&error).unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!(unknown.node.as_deref(), Some(node));
    let error = pointsman::Error::from(error);
    assert!(matches!(&error, pointsman::Error::OutcomeUnknown(_)), "{error:?}");
    assert!(OutcomeUnknown::find(&error).is_some());
    assert!(error.to_string().contains("may or may not"), "{error}");
}

/// The answer to a COMMIT is 16 bytes ("COMMIT" and "ready"); the test cuts it at every place that makes a difference.
#[tokio::test]
async fn a_commit_whose_answer_is_cut_off_is_unknown() {
    for bytes in [1, 5, 11] {
        let (cluster, set) = proxied_fixture().await;
        let proxy = cluster.primary().proxy().await.unwrap();
        let mut conn = set.write().await.unwrap();
        let outcome: QueryResult<()> = conn
            .transaction(async |tx| {
                add(tx, 1).await?;
                proxy.cut_after(bytes).await.map_err(|_| Error::RollbackTransaction)
            })
            .await;
        assert_unknown(outcome.unwrap_err(), set.config().nodes()[0].name());
        assert_eq!(committed(&cluster).await, "1", "here it was carried out");
        assert!(conn.is_closed());
        drop(conn);
        proxy.pass().await.unwrap();
        assert_clean(&set).await;
    }
}

/// The server is held up by a trigger at COMMIT; meanwhile the network goes away.
#[tokio::test]
async fn a_commit_whose_connection_is_reset_is_unknown() {
    let (cluster, set) = proxied_fixture().await;
    let primary = cluster.primary();
    primary.execute(DEFERRED_SLEEP).await.unwrap();
    let proxy = primary.proxy().await.unwrap();
    let mut conn = set.write().await.unwrap();
    let reset = async {
        let committing =
            "SELECT count(*) FROM pg_stat_activity WHERE query = 'COMMIT' AND wait_event = 'PgSleep'";
        until("the COMMIT is under way", async || primary.query_value(committing).await.unwrap() == "1")
            .await
            .unwrap();
        proxy.reset().await.unwrap();
    };
    let (outcome, ()) = tokio::join!(conn.transaction(async |tx| add(tx, 1).await), reset);
    assert_unknown(outcome.unwrap_err(), set.config().nodes()[0].name());
}

const DEFERRED_SLEEP: &str = "\
    CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(2); RETURN NULL; END'; \
    CREATE CONSTRAINT TRIGGER lingers AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED \
        FOR EACH ROW EXECUTE FUNCTION linger();";

/// The server closed the session (57P01) in the middle of a COMMIT.
#[tokio::test]
async fn a_commit_whose_session_is_terminated_is_unknown() {
    let (cluster, set) = fixture().await;
    let primary = cluster.primary();
    primary.execute(DEFERRED_SLEEP).await.unwrap();
    let mut conn = set.write().await.unwrap();
    let pid = backend(&conn).await;
    let terminate = async {
        let committing = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND query = 'COMMIT' AND wait_event = 'PgSleep'"
        );
        until("the COMMIT is under way", async || primary.query_value(&committing).await.unwrap() == "1")
            .await
            .unwrap();
        primary.execute(&format!("SELECT pg_terminate_backend({pid})")).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(conn.transaction(async |tx| add(tx, 1).await), terminate);
    let error: Error = outcome.unwrap_err();
    assert_eq!(OutcomeUnknown::find(&error).expect("it says so").sqlstate, Some(SqlState::ADMIN_SHUTDOWN));
    drop(conn);
    assert_clean(&set).await;
}

#[tokio::test]
async fn a_refused_commit_returns_the_error_of_the_server() {
    let (cluster, set) = fixture().await;
    cluster
        .primary()
        .execute(
            "CREATE TABLE pairs (n int PRIMARY KEY, m int REFERENCES pairs DEFERRABLE INITIALLY DEFERRED); \
             GRANT ALL ON pairs TO app",
        )
        .await
        .unwrap();
    let mut conn = set.write().await.unwrap();
    let outcome: QueryResult<usize> = conn
        .transaction(async |tx| diesel::sql_query("INSERT INTO pairs VALUES (1, 2)").execute(tx).await)
        .await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _)), "{error:?}");
    assert!(OutcomeUnknown::find(&error).is_none());
    assert_eq!(conn.last_sqlstate(), Some(SqlState::new(*b"23503")));
    assert_eq!(add(&conn, 1).await.unwrap(), 1, "the connection is as good as before");
    assert_eq!(committed(&cluster).await, "1");
    drop(conn);
    assert_clean(&set).await;
}

#[tokio::test]
async fn a_serialization_failure_at_commit_is_returned() {
    let cluster = start_cluster(0).await;
    cluster.primary().execute(NOTES).await.unwrap();
    let set = start(crate::support::builder_of(cluster.servers())).await;
    let meet = tokio::sync::Barrier::new(2);
    let count_and_add = async |id: i32| {
        let mut conn = set.write().await.unwrap();
        let outcome: QueryResult<usize> = conn
            .build_transaction()
            .serializable()
            .run(async |tx| {
                super::notes::table.count().get_result::<i64>(tx).await?;
                add(tx, id).await?;
                meet.wait().await;
                Ok(1)
            })
            .await;
        (outcome, conn.last_sqlstate())
    };
    let both = tokio::join!(count_and_add(1), count_and_add(2));
    let (loser, winner) = if both.0.0.is_err() { both } else { (both.1, both.0) };
    winner.0.unwrap();
    let error = loser.0.unwrap_err();
    assert!(matches!(error, Error::DatabaseError(DatabaseErrorKind::SerializationFailure, _)), "{error:?}");
    assert_eq!(loser.1, Some(SqlState::SERIALIZATION_FAILURE));
}

/// A connection that died before the COMMIT was sent cannot have committed, and the set knows it.
#[tokio::test]
async fn a_connection_that_ends_before_the_commit_is_not_ok() {
    let (cluster, set) = proxied_fixture().await;
    let proxy = cluster.primary().proxy().await.unwrap();
    let mut conn = set.write().await.unwrap();
    let outcome: QueryResult<()> = conn
        .transaction(async |tx| {
            add(tx, 1).await?;
            proxy.reset().await.map_err(|_| Error::RollbackTransaction)?;
            // The error is swallowed, so that it is the COMMIT that fails.
            let _ = add(tx, 2).await;
            Ok(())
        })
        .await;
    let error = outcome.unwrap_err();
    assert!(OutcomeUnknown::find(&error).is_none(), "no COMMIT was sent: {error:?}");
    assert_eq!(committed(&cluster).await, "");
    drop(conn);
    assert_clean(&set).await;
}
