//! The id of a transaction is noted with its own statements, and the question never changes the transaction.

use diesel::result::Error as DieselError;
use pointsman::prelude::*;
use pointsman::testkit::Cluster;
use pointsman::testkit::wait::until;
use pointsman::{Error, InDoubt, OutcomeUnknown, ReplicaSet, WriteOptions};

use crate::support::{fixture_with, start, urls_of};

diesel::table! { t (n) { n -> Integer, } }

/// A primary whose commits wait for a standby that does not exist, and which logs all statements.
async fn fixture() -> (Cluster, ReplicaSet) {
    let (cluster, set) = fixture_with(0, "CREATE TABLE t (n int)", |config| config).await;
    let primary = cluster.primary();
    primary.change_setting("log_statement", "all").await.unwrap();
    (cluster, set)
}

async fn sql(tx: &Conn<Write>, text: &str) -> QueryResult<usize> {
    diesel::sql_query(text.to_owned()).execute(tx).await
}

/// Returns how often the position was asked for in a round trip.
fn round_trips(cluster: &Cluster) -> usize {
    let log = cluster.primary().log();
    log.lines().filter(|line| line.contains("AS transaction_id")).count()
}

/// Runs a transaction whose wait for its standby is cancelled; returns its id in the server, and the note on it.
async fn in_doubt<F>(cluster: &Cluster, set: &ReplicaSet, options: WriteOptions, function: F) -> InDoubt
where
    for<'r> F: AsyncFnOnce(&'r mut Conn<Write>) -> QueryResult<()>
        + pointsman::AsyncFunc<&'r mut Conn<Write>, QueryResult<()>, Fut: Send>
        + Clone
        + Send,
{
    let primary = cluster.primary();
    primary.change_setting("synchronous_standby_names", "missing").await.unwrap();
    let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let options = options.resolvable();
    let (outcome, ()) = tokio::join!(set.run_write_with(&options, function), async {
        until("a COMMIT waits", async || primary.query_value(cancel).await.unwrap() == "1").await.unwrap();
    });
    primary.change_setting("synchronous_standby_names", "").await.unwrap();
    let error: DieselError = outcome.unwrap_err();
    let unknown = OutcomeUnknown::find(&error).unwrap_or_else(|| panic!("{error:?}"));
    unknown.in_doubt.clone().expect("it is noted")
}

async fn xmin(cluster: &Cluster, n: i32) -> u64 {
    let sql = format!("SELECT xmin FROM t WHERE n = {n}");
    cluster.primary().query_value(&sql).await.unwrap().parse().unwrap()
}

/// Each note cost a round trip.
#[tokio::test]
async fn the_note_comes_with_the_statements_wherever_a_question_may_follow_them() {
    let (cluster, set) = fixture().await;
    let plain = WriteOptions::new();
    macro_rules! noted {
        ($n:expr, $round_trips:expr, $options:expr, $function:expr) => {{
            let before = round_trips(&cluster);
            let end = cluster.primary().query_value("SELECT pg_current_wal_insert_lsn()").await.unwrap();
            let noted = in_doubt(&cluster, &set, $options, $function).await;
            assert_eq!(noted.transaction_id, xmin(&cluster, $n).await, "{}", $n);
            assert!(noted.position > end.parse().unwrap(), "behind the transaction's first record");
            assert_eq!(round_trips(&cluster) - before, $round_trips, "{}", $n);
        }};
    }
    // The second one uses the session's prepared statement.
    for n in 1..=2 {
        noted!(n, 0, plain, async move |tx| {
            diesel::insert_into(t::table).values(t::n.eq(n)).execute(tx).await.map(drop)
        });
    }
    noted!(3, 0, plain.repeatable_read(), async |tx| {
        t::table.count().get_result::<i64>(tx).await?;
        sql(tx, "INSERT INTO t VALUES (3)").await?;
        t::table.count().get_result::<i64>(tx).await.map(drop)
    });
    // The statement that failed has no note, and it may have written before.
    noted!(4, 1, plain, async |tx| {
        sql(tx, "INSERT INTO t VALUES (4)").await?;
        let failed: QueryResult<usize> = tx.transaction(async |tx| sql(tx, "SELECT 1 / 0").await).await;
        failed.unwrap_err();
        Ok(())
    });
    noted!(5, 0, plain, async |tx| {
        diesel_async::SimpleAsyncConnection::batch_execute(&mut **tx, "INSERT INTO t VALUES (5)").await
    });
    noted!(6, 0, plain, async |tx| {
        let tx = &*tx;
        let (one, other) = (sql(tx, "INSERT INTO t VALUES (6)"), sql(tx, "SELECT count(*) FROM t"));
        futures_util::try_join!(one, other).map(drop)
    });
    // A question behind these would fix the snapshot, or forbid the next statement; so it is asked before the COMMIT.
    noted!(7, 0, plain.repeatable_read(), async |tx| {
        sql(tx, "LOCK TABLE t").await?;
        sql(tx, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
        sql(tx, "SET CONSTRAINTS ALL DEFERRED").await?;
        sql(tx, "INSERT INTO t VALUES (7)").await.map(drop)
    });
    noted!(8, 1, plain, async |tx| {
        sql(tx, "INSERT INTO t VALUES (8)").await?;
        sql(tx, "CREATE TABLE u ()").await?;
        sql(tx, "DROP TABLE u").await.map(drop)
    });
    noted!(9, 1, plain, async |tx| {
        sql(tx, "SET LOCAL lock_timeout = '1s'").await?;
        sql(tx, "INSERT INTO t VALUES (9)").await.map(drop)
    });
}

/// A transaction that wrote nothing, or that failed, is as it is without a note.
#[tokio::test]
async fn a_note_changes_nothing_for_a_transaction_that_fails_or_writes_nothing() {
    let (cluster, set) = fixture().await;
    let options = WriteOptions::new().exactly_once();
    for _ in 0..2 {
        let outcome: QueryResult<usize> = set
            .run_write_with(&options, async |tx| {
                sql(tx, "INSERT INTO t VALUES (1)").await?;
                sql(tx, "SELECT 1 / 0").await
            })
            .await;
        let error = outcome.unwrap_err();
        assert!(error.to_string().contains("division by zero"), "{error}");
        let swallowed: Result<(), Error> = set
            .run_write_with(&options, async |tx| {
                sql(tx, "INSERT INTO t VALUES (1)").await?;
                sql(tx, "SELECT 1 / 0").await.unwrap_err();
                sql(tx, "INSERT INTO t VALUES (1)").await.unwrap_err();
                Ok(())
            })
            .await;
        assert!(matches!(swallowed, Err(Error::TransactionFailed(_))), "{swallowed:?}");
        let nothing: QueryResult<i64> =
            set.run_write_with(&options, async |tx| t::table.count().get_result(tx).await).await;
        assert_eq!(nothing.unwrap(), 0);
        set.run_write_with(&options, async |_| QueryResult::Ok(())).await.unwrap();
    }
    assert_eq!(round_trips(&cluster), 0);
}

/// A role that may not ask gets the server's error before anything is committed, and the error aborts nothing else.
#[tokio::test]
async fn a_role_that_may_not_ask_commits_nothing() {
    let (cluster, set) = fixture().await;
    let primary = cluster.primary();
    primary.execute("REVOKE EXECUTE ON FUNCTION pg_current_xact_id_if_assigned() FROM PUBLIC").await.unwrap();
    let insert = async |tx: &mut Conn<Write>| sql(tx, "INSERT INTO t VALUES (1)").await;
    let outcome: QueryResult<usize> = set.run_write_with(&WriteOptions::new().exactly_once(), insert).await;
    assert!(outcome.unwrap_err().to_string().contains("permission denied"));
    assert_eq!(primary.query_value("SELECT count(*) FROM t").await.unwrap(), "0");
    set.run_write(insert).await.unwrap();
    assert_eq!(primary.query_value("SELECT count(*) FROM t").await.unwrap(), "1");
    // With the right again, and in a new session, the note comes with the statement.
    primary.execute("GRANT EXECUTE ON FUNCTION pg_current_xact_id_if_assigned() TO PUBLIC").await.unwrap();
    let other = start(urls_of([primary.url()])).await;
    let before = round_trips(&cluster);
    other.run_write_with(&WriteOptions::new().exactly_once(), insert).await.unwrap();
    assert_eq!(round_trips(&cluster), before);
}
