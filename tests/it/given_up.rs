//! Work whose caller went away: it ends at the server as well, and its session counts until it has.

use pointsman::testkit::wait::until;
use std::time::Duration;

use diesel::result::Error;
use diesel_async::SimpleAsyncConnection;
use futures_util::future::join_all;
use pointsman::config::{ReadSettings, WriteSettings};
use pointsman::prelude::*;
use pointsman::testkit::{Cluster, Server};
use pointsman::{CheckoutError, assume_read_only};
use tokio::time::timeout;
use tokio_postgres::NoTls;

use crate::support::{
    backend, builder_of, checkout_within, in_use, patient_probes, pools_of, start, start_cluster, urls_of,
    value,
};

/// Long enough for a statement to be under way.
const A_MOMENT: Duration = Duration::from_millis(100);

/// Far longer than any test waits.
const FOREVER: &str = "SELECT pg_sleep(600)";

/// Waits until no session of the program under test runs or waits for anything at a server, or holds a lock on a table.
async fn quiet(server: &Server) {
    let busy = "SELECT (SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle') \
        + (SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) \
            WHERE usename = 'app' AND locktype = 'relation' AND mode = 'AccessExclusiveLock')";
    until("nothing runs", async || server.query_value(busy).await.unwrap() == "0").await.unwrap();
}

/// Five seconds after it was given up, a statement still ran and held its locks.
#[tokio::test]
async fn a_cancelled_transaction_leaves_no_statement_and_no_lock() {
    let cluster = start_cluster(0).await;
    cluster.primary().execute("CREATE TABLE accounts (id int)").await.unwrap();
    let set = start(builder_of(cluster.servers()).pool(pools_of(1))).await;
    let mut conn = set.write().await.unwrap();
    let transfer = conn.transaction(async |tx| {
        diesel::sql_query("LOCK TABLE accounts").execute(tx).await?;
        diesel::sql_query(FOREVER).execute(tx).await
    });
    assert!(timeout(A_MOMENT, transfer).await.is_err());
    // Also while its caller still holds the connection.
    quiet(cluster.primary()).await;
    assert!(conn.is_closed());
    drop(conn);
    let next = set.write().await.expect("the next one is let in once the session has ended");
    diesel::sql_query("LOCK TABLE accounts").execute(&next).await.unwrap_err();
    diesel::sql_query("INSERT INTO accounts VALUES (1)")
        .execute(&next)
        .await
        .expect("no session holds a lock");
}

/// 40 given-up writes on a pool of 10 left 40 backends waiting, so the pool's bound did not bound the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_up_writes_never_hold_more_backends_than_the_pool_has() {
    let cluster = start_cluster(0).await;
    cluster.primary().execute("CREATE TABLE accounts (id int)").await.unwrap();
    let admin = async || {
        let (client, driver) = tokio_postgres::connect(&cluster.primary().admin_url(), NoTls).await.unwrap();
        tokio::spawn(driver);
        client
    };
    let (mut holder, watcher) = (admin().await, admin().await);
    let set = start(builder_of(cluster.servers()).pool(pools_of(10)).application_name("impatient")).await;
    let lock = holder.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE accounts").await.unwrap();

    let writers = join_all((0..40).map(|_| async {
        let mut conn = set.write().await.expect("its turn comes");
        let insert = conn
            .transaction(async |tx| diesel::sql_query("INSERT INTO accounts VALUES (1)").execute(tx).await);
        assert!(timeout(A_MOMENT, insert).await.is_err());
    }));
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'impatient'";
    let mut most = 0;
    tokio::pin!(writers);
    loop {
        tokio::select! {
            _ = &mut writers => break,
            count = watcher.query_one(count, &[]) => most = most.max(count.unwrap().get::<_, i64>(0)),
        }
    }
    for _ in 0..20 {
        most = most.max(watcher.query_one(count, &[]).await.unwrap().get::<_, i64>(0));
    }
    // All but the monitor's.
    println!("at most {} backends", most - 1);
    assert!(most - 1 <= 10, "{} backends of a pool of 10", most - 1);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'impatient' \
        AND wait_event_type = 'Lock'";
    until("none waits for the lock", async || cluster.primary().query_value(waiting).await.unwrap() == "0")
        .await
        .unwrap();
    drop(lock);
    assert_eq!(in_use(&set), 0);
    let conn = set.write().await.unwrap();
    assert_eq!(value(&conn, "SELECT count(*) FROM accounts").await.unwrap(), "0");
}

/// A dropped `run_read` left its statement running on the replica, and a hedged one on the second node as well.
#[tokio::test]
async fn a_dropped_read_leaves_no_statement_on_any_node() {
    let cluster = start_cluster(2).await;
    let reads = ReadSettings {
        hedge_budget: 1.0,
        hedge_min_delay: Duration::from_millis(20),
        ..ReadSettings::default()
    };
    let set = start(builder_of(cluster.servers()).reads(reads)).await;
    for in_transaction in [false, true] {
        let read = set.run_read(async |conn| {
            let forever = assume_read_only(diesel::sql_query(FOREVER));
            if in_transaction {
                conn.transaction(async |tx| forever.execute(tx).await).await?;
            } else {
                forever.execute(conn).await?;
            }
            Ok::<_, pointsman::Error>(())
        });
        assert!(timeout(A_MOMENT * 5, read).await.is_err());
        for server in cluster.servers() {
            quiet(server).await;
        }
        assert_eq!(in_use(&set), 0);
    }
}

/// The call returned after 8 s, because ROLLBACK queued behind the abandoned statement.
#[tokio::test]
async fn a_timeout_around_one_statement_of_a_transaction_returns_soon() {
    let cluster = start_cluster(0).await;
    cluster.primary().execute("CREATE TABLE accounts (id int)").await.unwrap();
    let set = start(builder_of(cluster.servers()).pool(pools_of(1))).await;
    let mut conn = set.write().await.unwrap();
    let before = backend(&conn).await;
    let transfer = conn.transaction(async |tx| {
        diesel::sql_query("INSERT INTO accounts VALUES (1)").execute(tx).await?;
        timeout(A_MOMENT, diesel::sql_query(FOREVER).execute(tx))
            .await
            .unwrap_or(Err(Error::RollbackTransaction))
    });
    let outcome = timeout(Duration::from_secs(20), transfer).await.expect("long before the statement's end");
    assert!(matches!(outcome, Err(Error::RollbackTransaction)), "{outcome:?}");
    quiet(cluster.primary()).await;
    // A nested one leaves the transaction around it as it was.
    let outcome: QueryResult<()> = conn
        .transaction(async |tx| {
            diesel::sql_query("INSERT INTO accounts VALUES (2)").execute(tx).await?;
            let inner = tx.transaction(async |tx| {
                timeout(A_MOMENT, diesel::sql_query(FOREVER).execute(tx))
                    .await
                    .unwrap_or(Err(Error::RollbackTransaction))
            });
            inner.await.unwrap_err();
            Ok(())
        })
        .await;
    outcome.expect("the outer one commits");
    assert_eq!(value(&conn, "SELECT string_agg(id::text, ',') FROM accounts").await.unwrap(), "2");
    drop(conn);
    let next = set.write().await.unwrap();
    assert_ne!(backend(&next).await, before, "a late cancel request must not reach the next user");
}

/// The error of a pool that was busy ending abandoned work was that there is no primary.
#[tokio::test]
async fn a_pool_whose_server_does_not_end_what_was_given_up_is_exhausted() {
    let cluster = Cluster::builder().proxied().start().await.unwrap();
    let url = cluster.primary().proxied_url().await.unwrap();
    let soon = Duration::from_millis(300);
    let builder = urls_of([url]).pool(pools_of(1)).probe(patient_probes()).timeouts(checkout_within(soon));
    let writes = WriteSettings { failover_wait: soon, ..WriteSettings::default() };
    let set = start(builder.writes(writes)).await;
    let mut conn = set.write().await.unwrap();
    let proxy = cluster.primary().proxy().await.unwrap();
    let stalled = conn.transaction(async |tx| {
        proxy.stall().await.map_err(|_| Error::RollbackTransaction)?;
        diesel::sql_query(FOREVER).execute(tx).await
    });
    assert!(timeout(A_MOMENT, stalled).await.is_err());
    drop(conn);
    let error = set.write().await.unwrap_err();
    assert!(matches!(error, CheckoutError::Exhausted { max_size: 1, .. }), "{error}");
    proxy.pass().await.unwrap();
    until("the session has ended", async || set.write().await.is_ok()).await.unwrap();
    quiet(cluster.primary()).await;
}

/// A statement that was not yet sent when its caller went away ran on a session that was in the pool again.
#[tokio::test]
async fn a_statement_that_was_dropped_before_it_went_out_is_ended_too() {
    let cluster = start_cluster(0).await;
    let set = start(builder_of(cluster.servers()).pool(pools_of(1))).await;
    let mut conn = set.write().await.unwrap();
    let before = backend(&conn).await;
    {
        let mut statement = std::pin::pin!(conn.batch_execute(FOREVER));
        assert!(futures_util::poll!(&mut statement).is_pending());
    }
    drop(conn);
    let next = set.write().await.unwrap();
    let serves = timeout(Duration::from_secs(20), backend(&next)).await.expect("nothing is in its way");
    assert_ne!(serves, before, "the statement is on its way there");
    drop(next);
    quiet(cluster.primary()).await;
    let conn = set.write().await.unwrap();
    for _ in 0..20 {
        value(&conn, "SELECT 1").await.expect("nothing was left on it");
    }
}
