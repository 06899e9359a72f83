//! Conflicts between transactions are retried, wherever in the transaction they are noticed.

use std::sync::atomic::{AtomicU32, Ordering};

use diesel::result::Error as DieselError;
use diesel_async::AsyncConnection;
use futures_util::join;
use pointsman::prelude::*;
use pointsman::testkit::Cluster;
use pointsman::{Error, ReplicaSet, SqlState, TransactionFailed};

use crate::support::{connect, start_cluster};

/// Fails in the first run as a conflict with another transaction does, and does nothing in the next one.
fn conflict(run: u32) -> String {
    let raise = if run == 1 { "RAISE EXCEPTION 'as if' USING ERRCODE = '40P01'" } else { "NULL" };
    format!("DO $$ BEGIN {raise}; END $$")
}

async fn sql(tx: &Conn<Write>, text: &str) -> QueryResult<usize> {
    diesel::sql_query(text.to_owned()).execute(tx).await
}

struct Fixture {
    cluster: Cluster,
    set: ReplicaSet,
    runs: AtomicU32,
}

impl Fixture {
    async fn start() -> Self {
        let cluster = start_cluster(0).await;
        cluster.primary().execute("CREATE TABLE t (n int)").await.unwrap();
        let set = connect(&cluster).await;
        Self { cluster, set, runs: AtomicU32::new(0) }
    }

    fn run(&self) -> u32 {
        self.runs.fetch_add(1, Ordering::Relaxed) + 1
    }

    async fn assert_ran_twice_and_took_effect_once(&self) {
        assert_eq!(self.runs.fetch_add(0, Ordering::Relaxed), 2, "runs");
        assert_eq!(self.cluster.primary().query_value("SELECT count(*) FROM t").await.unwrap(), "1");
    }
}

/// The savepoint's rollback hid the conflict from the transaction around it, so the function ran once and failed.
#[tokio::test]
async fn a_conflict_that_passes_up_through_nested_transactions_is_run_again() {
    let fixture = Fixture::start().await;
    let outcome: Result<(), Error> = fixture
        .set
        .run_write(async |tx| {
            let run = fixture.run();
            sql(tx, "INSERT INTO t VALUES (1)").await?;
            tx.transaction(async |tx| {
                tx.transaction(async |tx| {
                    sql(tx, &conflict(run)).await?;
                    Ok::<_, Error>(())
                })
                .await
            })
            .await
        })
        .await;
    outcome.expect("it succeeds when it is run again");
    fixture.assert_ran_twice_and_took_effect_once().await;
}

/// The same through the bare connection that a `Conn<Write>` lends.
#[tokio::test]
async fn a_conflict_in_a_nested_transaction_of_diesel_is_run_again() {
    let fixture = Fixture::start().await;
    let outcome: Result<(), Error> = fixture
        .set
        .run_write(async |tx| {
            let run = fixture.run();
            sql(tx, "INSERT INTO t VALUES (1)").await?;
            AsyncConnection::transaction(&mut **tx, async |bare| {
                diesel_async::RunQueryDsl::execute(diesel::sql_query(conflict(run)), bare).await?;
                Ok::<_, DieselError>(())
            })
            .await?;
            Ok(())
        })
        .await;
    outcome.expect("it succeeds when it is run again");
    fixture.assert_ran_twice_and_took_effect_once().await;
}

/// The 25P02 of later statements in the pipeline replaced the conflict's code.
#[tokio::test]
async fn a_conflict_among_pipelined_statements_is_run_again() {
    let fixture = Fixture::start().await;
    let outcome: Result<(), Error> = fixture
        .set
        .run_write(async |tx| {
            let first = conflict(fixture.run());
            let (first, second, third) =
                join!(sql(tx, &first), sql(tx, "INSERT INTO t VALUES (1)"), sql(tx, "SELECT 1"));
            third?;
            second?;
            first?;
            Ok(())
        })
        .await;
    outcome.expect("it succeeds when it is run again");
    fixture.assert_ran_twice_and_took_effect_once().await;
}

/// The conflict was reported as a failure with 25P02, which hides the cause, and was not run again.
#[tokio::test]
async fn a_conflict_that_the_function_swallowed_is_run_again() {
    let fixture = Fixture::start().await;
    let outcome: Result<(), Error> = fixture
        .set
        .run_write(async |tx| {
            let first = conflict(fixture.run());
            let _ = join!(sql(tx, &first), sql(tx, "INSERT INTO t VALUES (1)"));
            Ok(())
        })
        .await;
    outcome.expect("it succeeds when it is run again");
    fixture.assert_ran_twice_and_took_effect_once().await;
}

#[tokio::test]
async fn a_failed_transaction_names_the_error_that_failed_it() {
    let fixture = Fixture::start().await;
    let mut conn = fixture.set.write().await.unwrap();
    let outcome: QueryResult<()> = conn
        .transaction(async |tx| {
            let _ = join!(sql(tx, "SELECT 1 / 0"), sql(tx, "SELECT 1"));
            let nested: QueryResult<()> = tx.transaction(async |_| Ok(())).await;
            nested.expect_err("no savepoint begins in a failed transaction");
            assert_eq!(tx.last_sqlstate(), Some(SqlState::new(*b"22012")));
            Ok(())
        })
        .await;
    let error = outcome.unwrap_err();
    let failed = TransactionFailed::find(&error).unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!(failed.sqlstate, Some(SqlState::new(*b"22012")));
}
