//! Incidents of writes: conflicts that `run_write` repeats, failures that it does not, and waiting for a primary.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use diesel::result::Error as DieselError;
use futures_util::future::{join_all, try_join_all};
use futures_util::poll;
use pointsman::config::{Backoff, NodeConfig, PoolSettings, TimeoutSettings, WriteSettings};
use pointsman::prelude::*;
use pointsman::testkit::Server;
use pointsman::testkit::wait::{until_no_primary, until_topology};
use pointsman::topology::PrimaryStatus;
use pointsman::{CheckoutError, Config, Error, ReplicaSet, WriteOptions};
use tokio::sync::Barrier;
use tokio::time::{Instant, sleep_until};

use crate::fixture::{acks, config_of, count_acks, fixture, fixture_with, write_row};
use crate::test_error::TestResult;

/// Runs a statement, and checks only its success.
pub(crate) async fn sql(tx: &Conn<Write>, text: &str) -> Result<(), Error> {
    diesel::sql_query(text).execute(tx).await?;
    Ok(())
}

/// A statement that fails as a conflict does, whatever other sessions do.
const CONFLICT: &str = "DO $$ BEGIN RAISE EXCEPTION 'as if' USING ERRCODE = '40001'; END $$";

/// Retries without long pauses, and many of them.
fn eager(retries: u32) -> WriteSettings {
    let retry_backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(10));
    let retry_backoff = retry_backoff.and_then(|backoff| backoff.with_jitter(1.0)).expect("a valid backoff");
    WriteSettings { retries, retry_backoff, ..WriteSettings::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_write_repeats_the_whole_transaction_after_a_deadlock() -> TestResult {
    let (cluster, set) = fixture(0).await?;
    let primary = cluster.primary();
    primary.change_setting("deadlock_timeout", "50ms").await?;
    primary.execute("CREATE TABLE seats (id int PRIMARY KEY, taken int NOT NULL)").await?;
    primary.execute("INSERT INTO seats VALUES (1, 0), (2, 0)").await?;

    let (runs, both_have_one) = (AtomicU32::new(0), Barrier::new(2));
    let take = async |first: u32, second: u32| {
        let mine = AtomicU32::new(0);
        set.run_write(async |tx| {
            runs.fetch_add(1, Ordering::Relaxed);
            sql(tx, &format!("UPDATE seats SET taken = taken + 1 WHERE id = {first}")).await?;
            if mine.fetch_add(1, Ordering::Relaxed) == 0 {
                both_have_one.wait().await;
            }
            sql(tx, &format!("UPDATE seats SET taken = taken + 1 WHERE id = {second}")).await
        })
        .await
    };
    let (one, other) = tokio::join!(take(1, 2), take(2, 1));
    one.and(other)?;
    assert_eq!(runs.into_inner(), 3, "the victim ran twice, the other one once");
    let taken = primary.query_value("SELECT string_agg(taken::text, ',') FROM seats").await;
    assert_eq!(taken?, "2,2", "nothing of the first run is left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_write_repeats_a_serialization_failure_up_to_the_limit() -> TestResult {
    let (cluster, set) = fixture_with(0, |config| config.writes(eager(3))).await?;

    // Write skew: each counts the rows and adds one only if there is none. One at a time, the second adds nothing.
    let (runs, both_have_read) = (AtomicU32::new(0), Barrier::new(2));
    let add_if_none = async |id: i64| {
        let mine = AtomicU32::new(0);
        let options = WriteOptions::new().serializable();
        set.run_write_with(&options, async |tx| {
            runs.fetch_add(1, Ordering::Relaxed);
            let rows: i64 = acks::table.count().get_result(tx).await?;
            if mine.fetch_add(1, Ordering::Relaxed) == 0 {
                both_have_read.wait().await;
            }
            if rows == 0 {
                sql(tx, &format!("INSERT INTO acks VALUES ({id})")).await?;
            }
            Ok::<_, Error>(rows)
        })
        .await
    };
    let (one, other) = tokio::join!(add_if_none(1), add_if_none(2));
    let mut seen = [one?, other?];
    seen.sort_unstable();
    assert_eq!(seen, [0, 1], "as if one had run after the other");
    assert_eq!((runs.into_inner(), count_acks(cluster.primary(), "true").await?), (3, 1));

    // It never succeeds: one run and three repeats.
    let runs = AtomicU32::new(0);
    let outcome: Result<(), Error> = set
        .run_write(async |tx| {
            runs.fetch_add(1, Ordering::Relaxed);
            sql(tx, CONFLICT).await
        })
        .await;
    assert_eq!(outcome.map_err(kind), Err("SerializationFailure".to_owned()));
    assert_eq!(runs.into_inner(), 4);

    // What succeeds runs once.
    let runs = AtomicU32::new(0);
    let once = set.run_write(async |tx| {
        runs.fetch_add(1, Ordering::Relaxed);
        sql(tx, "INSERT INTO acks VALUES (100)").await
    });
    once.await?;
    assert_eq!(runs.into_inner(), 1);
    Ok(())
}

/// The kind of an error, without the server's text.
fn kind(error: Error) -> String {
    match error {
        Error::Query(DieselError::DatabaseError(kind, _)) => format!("{kind:?}"),
        other => format!("{other:?}"),
    }
}

/// The server sends an error before the transaction's new status. A check of the status at that moment did not see a
/// failed transaction, and so no conflict: some of them were not run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_serialization_failure_among_many_is_run_again() -> TestResult {
    let (cluster, set) = fixture_with(0, |config| config.writes(eager(1000))).await?;
    cluster.primary().execute("CREATE TABLE total (n int); INSERT INTO total VALUES (0)").await?;
    let options = WriteOptions::new().repeatable_read();
    let runs = AtomicU32::new(0);
    let one = async || {
        for _ in 0..40 {
            set.run_write_with(&options, async |tx| {
                runs.fetch_add(1, Ordering::Relaxed);
                sql(tx, "UPDATE total SET n = n + 1").await
            })
            .await?;
        }
        Ok::<_, Error>(())
    };
    try_join_all((0..6).map(|_| one())).await?;
    assert_eq!(cluster.primary().query_value("SELECT n FROM total").await?, "240");
    println!("240 increments of one row by 6 writers took {} runs", runs.into_inner());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_write_repeats_only_runs_without_effect() -> TestResult {
    let (cluster, set) = fixture_with(0, |config| config.writes(eager(5))).await?;
    let primary = cluster.primary();
    let proxy = primary.proxy().await?;
    let url = primary.proxied_url().await?;
    let far = Config::builder().node(NodeConfig::primary(url)?.with_name("far"));
    let far = ReplicaSet::connect(far.writes(eager(5)).build()?).await?;
    let runs = AtomicU32::new(0);
    let run = || runs.fetch_add(1, Ordering::Relaxed);

    let outcome: Result<(), Error> = set
        .run_write(async |tx| {
            run();
            sql(tx, "INSERT INTO acks VALUES (1), (1)").await
        })
        .await;
    assert_eq!(outcome.map_err(kind), Err("UniqueViolation".to_owned()));
    assert_eq!(runs.swap(0, Ordering::Relaxed), 1, "a unique violation");

    // The conflict was in a savepoint, and the function recovered from it; its own error is unrelated.
    let outcome: Result<(), Error> = set
        .run_write(async |tx| {
            run();
            let nested: Result<(), Error> = tx.transaction(async |tx| sql(tx, CONFLICT).await).await;
            assert!(nested.is_err());
            sql(tx, "INSERT INTO acks VALUES (2)").await?;
            Err(DieselError::NotFound.into())
        })
        .await;
    assert_eq!(outcome.map_err(kind), Err("Query(NotFound)".to_owned()));
    assert_eq!(runs.swap(0, Ordering::Relaxed), 1, "an error of the function's own");

    let outcome: Result<(), Error> = set
        .run_write(async |tx| {
            run();
            let nested: Result<(), Error> = tx.transaction(async |tx| sql(tx, CONFLICT).await).await;
            assert!(nested.is_err());
            sql(tx, "SELECT pg_terminate_backend(pg_backend_pid())").await
        })
        .await;
    outcome.expect_err("the session was ended");
    assert_eq!(runs.swap(0, Ordering::Relaxed), 3, "a transaction that ends its sessions");

    // The COMMIT is carried out, and its answer is lost on the way.
    let outcome: Result<(), Error> = far
        .run_write(async |tx| {
            run();
            // It stays prepared, so that no request follows that closes it.
            diesel::insert_into(acks::table).values(acks::id.eq(3)).execute(tx).await?;
            proxy.cut_after(0).await.expect("cut");
            Ok(())
        })
        .await;
    assert!(matches!(outcome, Err(Error::OutcomeUnknown(_))), "{outcome:?}");
    assert_eq!(runs.swap(0, Ordering::Relaxed), 1, "an unknown outcome");
    assert_eq!(count_acks(primary, "id = 3").await?, 1, "which was a commit");
    assert_eq!(count_acks(primary, "id < 3").await?, 0, "and all others were rolled back");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_a_primary_is_bounded_and_its_error_names_each_node() -> TestResult {
    let writes = WriteSettings {
        failover_wait: Duration::from_millis(700),
        max_waiters: 4,
        ..WriteSettings::default()
    };
    let (cluster, set) = fixture_with(1, |config| config.writes(writes)).await?;
    cluster.primary().kill().await?;
    until_no_primary(&set).await?;

    let began = Instant::now();
    let mut waiters: Vec<_> = (0..4).map(|_| Box::pin(set.write())).collect();
    for waiter in &mut waiters {
        assert!(poll!(waiter).is_pending());
    }
    let error = set.write().await.expect_err("there is no place left");
    assert!(matches!(error, CheckoutError::TooManyWaiters { limit: 4 }), "{error}");
    assert!(began.elapsed() < Duration::from_millis(300), "told at once: {:?}", began.elapsed());

    // A caller that gives up makes room for another one.
    waiters.pop();
    waiters.push(Box::pin(set.write()));
    for waiter in &mut waiters {
        assert!(poll!(waiter).is_pending(), "the place of the one that was dropped is free");
    }
    let errors = join_all(waiters).await;
    let took = began.elapsed();
    assert!((Duration::from_millis(700)..Duration::from_millis(1100)).contains(&took), "{took:?}");
    for outcome in errors {
        let error = outcome.expect_err("there was no primary");
        let CheckoutError::NoPrimary { failures, .. } = &error else { panic!("{error}") };
        let of = |server: &Server| failures.iter().find(|failure| failure.node == server.name());
        let old = of(cluster.primary()).expect("the old primary is named");
        assert!(old.error.is_some() && old.reason.contains("(down)"), "{error}");
        assert!(of(cluster.replica(0)).is_some_and(|it| it.reason.contains("replica (up)")), "{error}");
    }
    Ok(())
}

/// The deadline of a checkout was counted from the beginning of the wait for a primary. After a longer failover, all
/// waiters but those who found a connection at once got an error about an exhausted pool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_waiters_get_a_connection_of_a_small_pool_after_a_long_failover() -> TestResult {
    let timeouts = TimeoutSettings { checkout: Duration::from_millis(500), ..TimeoutSettings::default() };
    let pool = PoolSettings { max_size: 2, ..PoolSettings::default() };
    let (cluster, old_set) = fixture(1).await?;
    drop(old_set);
    let config = config_of(cluster.servers()).timeouts(timeouts).pool(pool).build()?;
    let set = ReplicaSet::connect(config).await?;
    until_topology(&set, "there is a primary", |topology| topology.primary != PrimaryStatus::None).await?;
    cluster.primary().kill().await?;
    until_no_primary(&set).await?;

    let began = Instant::now();
    let waiters: Vec<_> = (0..40)
        .map(|id| {
            let set = set.clone();
            tokio::spawn(async move { write_row(&set, id).await })
        })
        .collect();
    sleep_until(began + Duration::from_millis(600)).await;
    cluster.replica(0).promote().await?;
    for waiter in waiters {
        waiter.await??;
    }
    assert_eq!(count_acks(cluster.replica(0), "true").await?, 40);
    Ok(())
}
