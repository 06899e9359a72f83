//! A transaction takes effect once: it runs again after a lost connection, and a COMMIT without an answer is resolved.

mod notes;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use diesel::result::Error as DieselError;
use pointsman::prelude::*;
use pointsman::testkit::wait::{until, until_writable};
use pointsman::testkit::{Cluster, Proxy};
use pointsman::{Error, OutcomeUnknown, ReplicaSet, WriteOptions};
use tokio::time::{sleep, timeout};

use crate::support::{start, urls_of};

/// Inserts wait in COMMIT for a lock, so that a test can end the session there.
const HELD: &str = "\
    CREATE TABLE t (n int); \
    CREATE FUNCTION wait_for_leave() RETURNS trigger LANGUAGE plpgsql AS \
        $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END $$; \
    CREATE CONSTRAINT TRIGGER held AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED \
        FOR EACH ROW EXECUTE FUNCTION wait_for_leave();";

const ONCE: WriteOptions = WriteOptions::new().exactly_once();

struct Fixture {
    cluster: Cluster,
    set: ReplicaSet,
    runs: AtomicU32,
}

impl Fixture {
    /// A primary behind a proxy.
    async fn start() -> Self {
        let cluster = Cluster::builder().replicas(0).proxied().start().await.unwrap();
        cluster.primary().execute(HELD).await.unwrap();
        let set = start(urls_of([cluster.primary().proxied_url().await.unwrap()])).await;
        until_writable(&set).await.unwrap();
        Self { cluster, set, runs: AtomicU32::new(0) }
    }

    /// Counts a run; returns `true` in the first one.
    fn run(&self) -> bool {
        self.runs.fetch_add(1, Ordering::Relaxed) == 0
    }

    fn runs(&self) -> u32 {
        self.runs.swap(0, Ordering::Relaxed)
    }

    async fn proxy(&self) -> &Proxy {
        self.cluster.primary().proxy().await.unwrap()
    }

    /// Ends all connections, and waits until this one is known to have ended.
    async fn end(&self, conn: &Conn<Write>) {
        self.proxy().await.reset().await.unwrap();
        let ended = async {
            while !conn.is_closed() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(5), ended).await.expect("the connection has ended");
        self.proxy().await.pass().await.unwrap();
    }

    /// Lets answers pass again once a row is committed.
    async fn pass_after(&self, n: i32) {
        let sql = format!("SELECT count(*) FROM t WHERE n = {n}");
        let is_there = async || self.cluster.primary().query_value(&sql).await.unwrap() == "1";
        until("the row is committed", is_there).await.unwrap();
        self.proxy().await.pass().await.unwrap();
    }

    async fn rows(&self) -> String {
        let rows = "SELECT coalesce(string_agg(n::text, ',' ORDER BY n), '') FROM t";
        self.cluster.primary().query_value(rows).await.unwrap()
    }
}

diesel::table! { t (n) { n -> Integer, } }

/// Inserts by a statement that stays prepared, so that no request follows that closes it.
async fn insert(tx: &Conn<Write>, n: i32) -> Result<i32, Error> {
    diesel::insert_into(t::table).values(t::n.eq(n)).execute(tx).await?;
    Ok(n)
}

/// The error was `OutcomeUnknown`, although the primary was there to be asked.
#[tokio::test]
async fn a_commit_whose_answer_was_lost_returns_the_value() {
    let fixture = Fixture::start().await;
    for n in 1..=3 {
        let value = fixture.set.run_write_with(&ONCE, async |tx| {
            fixture.run();
            let value = insert(tx, n).await?;
            fixture.proxy().await.cut_after(0).await.unwrap();
            Ok::<_, Error>(value)
        });
        let (value, ()) = tokio::join!(value, fixture.pass_after(n));
        assert_eq!(value.unwrap(), n);
        assert_eq!(fixture.runs(), 1, "it is not run again");
    }
    assert_eq!(fixture.rows().await, "1,2,3");
}

#[tokio::test]
async fn a_commit_that_was_not_carried_out_is_run_again() {
    let fixture = Fixture::start().await;
    let primary = fixture.cluster.primary();
    let (client, connection) =
        tokio_postgres::connect(&primary.admin_url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();

    let write = fixture.set.run_write_with(&ONCE, async |tx| {
        fixture.run();
        insert(tx, 1).await
    });
    let end_it = async {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
            WHERE usename = 'app' AND wait_event = 'advisory'";
        until("a COMMIT waits", async || primary.query_value(sql).await.unwrap() == "1").await.unwrap();
        client.batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
    };
    let (value, ()) = tokio::join!(write, end_it);
    assert_eq!(value.unwrap(), 1);
    assert_eq!((fixture.runs(), fixture.rows().await), (2, "1".to_owned()));
}

/// Such a transaction failed, although it cannot have had an effect.
#[tokio::test]
async fn a_connection_that_is_lost_before_the_commit_fails_no_transaction() {
    let fixture = Fixture::start().await;
    // Before a statement, and with its error swallowed; before the COMMIT, without a statement that notices it.
    for swallowed in [false, true] {
        let value: Result<i32, Error> = fixture
            .set
            .run_write(async |tx| {
                let value = insert(tx, 1).await?;
                if fixture.run() {
                    fixture.end(tx).await;
                }
                match insert(tx, 2).await {
                    Err(error) if !swallowed => Err(error),
                    _ => Ok(value),
                }
            })
            .await;
        assert_eq!(value.unwrap(), 1, "{swallowed}");
        assert_eq!((fixture.runs(), fixture.rows().await), (2, "1,2".to_owned()), "{swallowed}");
        fixture.cluster.primary().execute("TRUNCATE t").await.unwrap();
    }
    let value = fixture.set.run_write(async |tx| {
        let value = insert(tx, 1).await?;
        if fixture.run() {
            fixture.end(tx).await;
        }
        Ok::<_, Error>(value)
    });
    assert_eq!(value.await.unwrap(), 1);
    assert_eq!((fixture.runs(), fixture.rows().await), (2, "1".to_owned()));
    // A savepoint, and the bare connection.
    let value = fixture.set.run_write(async |tx| {
        if fixture.run() {
            fixture.end(tx).await;
        }
        tx.transaction(async |tx| insert(tx, 2).await).await?;
        diesel_async::RunQueryDsl::execute(diesel::sql_query("INSERT INTO t VALUES (3)"), &mut **tx).await?;
        Ok::<_, Error>(())
    });
    value.await.unwrap();
    assert_eq!((fixture.runs(), fixture.rows().await), (2, "1,2,3".to_owned()));
}

#[tokio::test]
async fn an_error_of_the_function_is_final_also_if_the_connection_ends_unnoticed() {
    let fixture = Fixture::start().await;
    for options in [WriteOptions::new(), ONCE] {
        let outcome: Result<(), Error> = fixture
            .set
            .run_write_with(&options, async |tx| {
                fixture.run();
                insert(tx, 1).await?;
                fixture.end(tx).await;
                Err(DieselError::NotFound.into())
            })
            .await;
        assert!(matches!(outcome, Err(Error::Query(DieselError::NotFound))), "{outcome:?}");
        assert_eq!((fixture.runs(), fixture.rows().await), (1, String::new()));
    }
}

#[tokio::test]
async fn a_transaction_that_ends_its_sessions_is_given_up() {
    let fixture = Fixture::start().await;
    let outcome: Result<i32, Error> = fixture
        .set
        .run_write_with(&ONCE, async |tx| {
            fixture.run();
            insert(tx, 1).await?;
            let end = diesel::sql_query("SELECT pg_terminate_backend(pg_backend_pid())");
            end.execute(tx).await?;
            Ok(1)
        })
        .await;
    outcome.unwrap_err();
    assert_eq!((fixture.runs(), fixture.rows().await), (3, String::new()));
}

#[tokio::test]
async fn a_transaction_that_asked_to_be_read_only_is_not_repeated() {
    let fixture = Fixture::start().await;
    let outcome: Result<i32, Error> = fixture
        .set
        .run_write_with(&ONCE, async |tx| {
            fixture.run();
            diesel::sql_query("SET TRANSACTION READ ONLY").execute(tx).await?;
            insert(tx, 1).await
        })
        .await;
    outcome.unwrap_err();
    assert_eq!(fixture.runs(), 1);
}

/// While nothing answers, the deadline bounds all of it, and the error is that of the failed run.
#[tokio::test]
async fn the_deadline_ends_the_repeats_with_the_error_of_the_run() {
    let fixture = Fixture::start().await;
    let began = tokio::time::Instant::now();
    let options = ONCE.within(Duration::from_millis(700));
    let outcome: Result<i32, Error> = fixture
        .set
        .run_write_with(&options, async |tx| {
            fixture.run();
            insert(tx, 1).await?;
            fixture.proxy().await.reset().await.unwrap();
            fixture.proxy().await.refuse().await.unwrap();
            insert(tx, 2).await
        })
        .await;
    assert!(matches!(outcome, Err(Error::Query(_))), "{outcome:?}");
    let took = began.elapsed();
    assert!((Duration::from_millis(600)..Duration::from_secs(2)).contains(&took), "{took:?}");
    assert_eq!(fixture.runs(), 1);

    // The same for a COMMIT that nothing can resolve.
    fixture.proxy().await.pass().await.unwrap();
    until_writable(&fixture.set).await.unwrap();
    let outcome: Result<i32, Error> = fixture
        .set
        .run_write_with(&options, async |tx| {
            let value = insert(tx, 3).await?;
            fixture.proxy().await.cut_after(0).await.unwrap();
            Ok(value)
        })
        .await;
    if let Err(error) = &outcome {
        assert!(OutcomeUnknown::find(error).is_some_and(|unknown| unknown.in_doubt.is_some()), "{error:?}");
    }
}

/// Waits until a COMMIT waits for the standby, and cancels that wait.
async fn cancel_the_wait(fixture: &Fixture) {
    let sql = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let primary = fixture.cluster.primary();
    until("a COMMIT waits", async || primary.query_value(sql).await.unwrap() == "1").await.unwrap();
}

/// A transaction that its standby may not have is acknowledged only after another commit has waited for the standby.
#[tokio::test]
async fn a_commit_without_its_synchronous_standby_is_acknowledged_once_the_standby_has_it() {
    let fixture = Fixture::start().await;
    let primary = fixture.cluster.primary();
    primary.change_setting("synchronous_standby_names", "missing").await.unwrap();
    let write = async |n, limit| {
        fixture
            .set
            .run_write_with(&ONCE.within(Duration::from_secs(limit)), async |tx| {
                fixture.run();
                insert(tx, n).await
            })
            .await
    };
    let (outcome, ()) = tokio::join!(write(1, 2), cancel_the_wait(&fixture));
    let error = outcome.unwrap_err();
    let unknown = OutcomeUnknown::find(&error).unwrap_or_else(|| panic!("{error:?}"));
    assert!(unknown.committed_locally && unknown.in_doubt.is_some(), "{unknown:?}");
    assert_eq!((fixture.runs(), fixture.rows().await), (1, "1".to_owned()));

    // The first write's check for the standby is given up, and must not be taken for the second write.
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    until("no COMMIT waits", async || primary.query_value(waiting).await.unwrap() == "0").await.unwrap();
    let return_of_the_standby = async {
        cancel_the_wait(&fixture).await;
        primary.change_setting("synchronous_standby_names", "").await.unwrap();
    };
    let (outcome, ()) = tokio::join!(write(2, 30), return_of_the_standby);
    assert_eq!(outcome.unwrap(), 2);
    assert_eq!((fixture.runs(), fixture.rows().await), (1, "1,2".to_owned()));
}

/// The lost COMMIT left a gap in the session. After a failover such a gap is an error, so a resolved COMMIT must leave none.
#[tokio::test]
async fn a_session_covers_a_commit_that_was_resolved() {
    let fixture = Fixture::start().await;
    let session = fixture.set.session();
    let before = session.run_write(async |tx| insert(tx, 1).await).await;
    before.unwrap();
    let token = session.token().expect("it has written");
    let value = session.run_write_with(&ONCE, async |tx| {
        let value = insert(tx, 2).await?;
        fixture.proxy().await.cut_after(0).await.unwrap();
        Ok::<_, Error>(value)
    });
    let (value, ()) = tokio::join!(value, fixture.pass_after(2));
    assert_eq!(value.unwrap(), 2);
    let positions = |token: &pointsman::CausalToken| token.to_string();
    let after = session.token().expect("it has written");
    assert_ne!(positions(&token), positions(&after), "the token is newer");
    let count: i64 = session
        .run_read(async |conn| {
            let count = diesel::dsl::sql::<diesel::sql_types::BigInt>("(SELECT count(*) FROM t)");
            Ok::<_, Error>(diesel::select(count).get_result(conn).await?)
        })
        .await
        .unwrap();
    assert_eq!(count, 2);
}
