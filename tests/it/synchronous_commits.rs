//! Synchronous replication: a COMMIT whose wait for its standby is cut short is no plain success.

use pointsman::testkit::wait::until;
use std::sync::atomic::{AtomicU32, Ordering};

use pointsman::prelude::*;
use pointsman::testkit::{Cluster, Server};
use pointsman::{CommitOutcome, Error, OutcomeUnknown, ReplicaSet, WriteOptions};
use tokio::join;

use crate::support::fixture_with;

const INSERT: &str = "INSERT INTO t VALUES (1) RETURNING n";

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = diesel::sql_types::Integer)]
    n: i32,
}

/// A primary whose commits wait for a standby that does not exist.
async fn waiting_fixture() -> (Cluster, ReplicaSet) {
    let (cluster, set) = fixture_with(0, "CREATE TABLE t (n int)", |config| config).await;
    cluster.primary().change_setting("synchronous_standby_names", "missing").await.unwrap();
    (cluster, set)
}

/// Calls a function of the server for the session that waits for the standby, as an administrator does.
async fn end_the_wait(primary: &Server, function: &str) {
    let sql = format!("SELECT count({function}(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
    until("a COMMIT waits", async || primary.query_value(&sql).await.unwrap() == "1").await.unwrap();
}

async fn insert(conn: &Conn<Write>) -> QueryResult<i32> {
    let row: Row = diesel::sql_query(INSERT).get_result(conn).await?;
    Ok(row.n)
}

#[track_caller]
fn assert_committed_locally<T>(outcome: &Result<T, impl std::error::Error + 'static>) -> &OutcomeUnknown {
    let error = outcome.as_ref().err().expect("it is no plain success");
    let unknown = OutcomeUnknown::find(error).unwrap_or_else(|| panic!("{error:?}"));
    assert!(unknown.committed_locally, "{unknown:?}");
    assert!(error.to_string().contains("synchronous standby"), "{error}");
    unknown
}

/// The result was `Ok`: the server's warning that the standby may not have the commit was ignored.
#[tokio::test]
async fn a_commit_whose_wait_for_its_standby_was_cancelled_is_not_ok() {
    let (cluster, set) = waiting_fixture().await;
    let primary = cluster.primary();
    let runs = AtomicU32::new(0);
    let committing = set.run_write_with(&WriteOptions::new().resolvable(), async |tx| {
        runs.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Error>(insert(tx).await?)
    });
    let (outcome, ()) = join!(committing, end_the_wait(primary, "pg_cancel_backend"));
    assert!(matches!(outcome, Err(Error::OutcomeUnknown(_))), "{outcome:?}");
    let unknown = assert_committed_locally(&outcome);
    assert_eq!(runs.into_inner(), 1, "it is not run again");
    assert_eq!(primary.query_value("SELECT count(*) FROM t").await.unwrap(), "1", "the primary has it");
    let in_doubt = unknown.in_doubt.clone().expect("it was noted");
    assert_eq!(set.resolve(&in_doubt).await.unwrap(), CommitOutcome::Committed);

    let mut conn = set.write().await.unwrap();
    let committing = conn.transaction(async |tx| insert(tx).await);
    let (outcome, ()) = join!(committing, end_the_wait(primary, "pg_cancel_backend"));
    assert_committed_locally(&outcome);
    assert!(!conn.is_closed());
    let nothing: QueryResult<()> = conn.transaction(async |_| Ok(())).await;
    nothing.expect("the next transaction has nothing to do with it");
}

#[tokio::test]
async fn a_session_that_was_terminated_while_it_waited_for_the_standby_says_what_is_known() {
    let (cluster, set) = waiting_fixture().await;
    let mut conn = set.write().await.unwrap();
    let committing = conn.transaction(async |tx| insert(tx).await);
    let (outcome, ()) = join!(committing, end_the_wait(cluster.primary(), "pg_terminate_backend"));
    assert_committed_locally(&outcome);
    assert!(conn.is_closed());
}

/// A single statement is a transaction by itself.
#[tokio::test]
async fn a_statement_outside_a_transaction_reports_a_cancelled_wait_for_the_standby() {
    let (cluster, set) = waiting_fixture().await;
    let primary = cluster.primary();
    let conn = set.write().await.unwrap();
    let execute = diesel::sql_query(INSERT).execute(&conn);
    let (outcome, ()) = join!(execute, end_the_wait(primary, "pg_cancel_backend"));
    assert_committed_locally(&outcome);
    let (outcome, ()) = join!(insert(&conn), end_the_wait(primary, "pg_cancel_backend"));
    assert_committed_locally(&outcome);
    let load = async { diesel::sql_query(INSERT).load::<Row>(&conn).await.map(drop) };
    let (outcome, ()) = join!(load, end_the_wait(primary, "pg_cancel_backend"));
    assert_committed_locally(&outcome);
    assert_eq!(primary.query_value("SELECT count(*) FROM t").await.unwrap(), "3");
}
