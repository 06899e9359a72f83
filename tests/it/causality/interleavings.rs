//! Sessions whose connections, transactions and callers end at the wrong moment.

use std::time::Duration;

use pointsman::config::ReadSettings;
use pointsman::prelude::*;
use pointsman::testkit::Cluster;
use pointsman::testkit::wait::{until, until_writable};
use pointsman::{CausalError, CausalToken, Error, Role, Session};
use tokio::time::timeout;
use tokio::try_join;

use super::{causal, counters, fixture, increment, value};
use crate::support::{builder_of, pools_of, smuggle, start};

async fn read_counter<I: Intent>(conn: &Conn<I>) -> QueryResult<i32> {
    counters::table.find(1).select(counters::value).first(conn.as_read()).await
}

async fn insert(conn: &Conn<Write>, id: i32) -> QueryResult<usize> {
    let counter = (counters::id.eq(id), counters::value.eq(id));
    diesel::insert_into(counters::table).values(counter).execute(conn).await
}

/// The number of counters that a read of the session finds.
async fn count(session: &Session) -> i64 {
    let read = session.run_read(async |conn| Ok::<_, Error>(counters::table.count().get_result(conn).await?));
    read.await.unwrap()
}

/// The answer of a replica that was behind passed for a result as soon as its connection ended, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_did_not_prove_counts_no_more_when_its_connection_ends() {
    let (cluster, set) = fixture(1, ReadSettings::default()).await;
    cluster.replica(0).pause_replay().await.unwrap();
    let session = set.session();
    let written = increment(&session).await;
    let read = session.run_read(async |conn| {
        let read = read_counter(conn).await?;
        if conn.role() == Role::Replica {
            // The function does not need the connection any more, so it does not notice.
            let _ = smuggle(conn, "SELECT pg_terminate_backend(pg_backend_pid())").await;
        }
        Ok::<_, Error>(read)
    });
    assert_eq!(read.await.unwrap(), written);
}

/// The positions of a replica that had followed the new primary counted as those of the old timeline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_kept_through_a_failover_reports_no_loss_where_nothing_was_lost() {
    let (cluster, set) = fixture(2, ReadSettings::default()).await;
    let (new_primary, follower) = (cluster.replica(0), cluster.replica(1));
    let session = set.session();
    let conn = loop {
        let conn = session.read().await.unwrap();
        if conn.node().contains(&follower.port().to_string()) {
            break conn;
        }
    };
    assert_eq!(read_counter(&conn).await.unwrap(), 0);
    cluster.wait_caught_up().await.unwrap();
    cluster.primary().kill().await.unwrap();
    new_primary.promote().await.unwrap();
    follower.follow(new_primary).await.unwrap();
    until_writable(&set).await.unwrap();

    let written = increment(&set.session()).await;
    until("the replica serves what was written since", async || {
        let other = set.session();
        increment(&other).await;
        matches!(value(&other).await, Ok((_, Role::Replica)))
    })
    .await
    .unwrap();
    until("the old connection sees it", async || read_counter(&conn).await.unwrap() >= written)
        .await
        .unwrap();
    assert!(value(&session).await.unwrap().0 >= written);
    assert_eq!(session.token().unwrap().timeline(), 2);
}

/// The session of a connection to a standby goes on when that is promoted, with positions of the new timeline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_to_a_standby_that_is_promoted_records_the_new_timeline() {
    let (cluster, set) = fixture(1, ReadSettings::default()).await;
    let session = set.session();
    let conn = session.read().await.unwrap();
    assert_eq!((conn.role(), read_counter(&conn).await.unwrap()), (Role::Replica, 0));
    cluster.primary().kill().await.unwrap();
    cluster.replica(0).promote().await.unwrap();
    until_writable(&set).await.unwrap();
    let written = increment(&set.session()).await;
    if !conn.is_closed() {
        assert_eq!(read_counter(&conn).await.unwrap(), written);
        assert_eq!(session.token().unwrap().timeline(), 2);
    }
    assert_eq!(value(&session).await.unwrap().0, written);
}

/// A session forgot what it had read in a transaction that it rolled back, and read something older next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_in_a_transaction_that_is_rolled_back_is_seen_again() {
    let (cluster, set) = fixture(1, ReadSettings::default()).await;
    cluster.replica(0).pause_replay().await.unwrap();
    let written = increment(&set.session()).await;

    let session = set.session();
    let rolled_back = session.run_write(async |tx| {
        assert_eq!(read_counter(tx).await?, written);
        Err::<(), _>(Error::from(diesel::result::Error::RollbackTransaction))
    });
    rolled_back.await.unwrap_err();
    assert_eq!(value(&session).await.unwrap().0, written, "run_write");

    let session = set.session();
    let mut conn = session.write().await.unwrap();
    let rolled_back = conn.transaction(async |tx| {
        let inner = tx.transaction(async |tx| read_counter(tx).await).await?;
        assert_eq!(inner, written);
        Err::<(), _>(diesel::result::Error::RollbackTransaction)
    });
    rolled_back.await.unwrap_err();
    assert_eq!(value(&session).await.unwrap().0, written, "with a savepoint");

    // A statement that fails the transaction.
    let session = set.session();
    let failed = session.run_write(async |tx| {
        assert_eq!(read_counter(tx).await?, written);
        Ok::<_, Error>(diesel::sql_query("SELECT 1 / 0").execute(tx).await?)
    });
    failed.await.unwrap_err();
    assert_eq!(value(&session).await.unwrap().0, written, "after an error");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_rolled_back_leaves_a_token_that_any_replica_satisfies() {
    let (cluster, set) = fixture(1, ReadSettings::default()).await;
    let session = set.session();
    let before = increment(&session).await;
    let rolled_back = session.run_write(async |tx| {
        diesel::update(counters::table).set(counters::value.eq(-1)).execute(tx).await?;
        Err::<(), _>(Error::from(diesel::result::Error::RollbackTransaction))
    });
    rolled_back.await.unwrap_err();
    cluster.wait_caught_up().await.unwrap();
    until("a replica serves the session", async || {
        let (read, role) = value(&session).await.unwrap();
        assert_eq!(read, before);
        role == Role::Replica
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_many_tasks_share_covers_what_each_of_them_did() {
    let (cluster, set) = fixture(2, ReadSettings::default()).await;
    cluster.replica(0).set_replay_delay(Duration::from_millis(40)).await.unwrap();
    let session = set.session();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let session = session.clone();
            tokio::spawn(async move {
                for _ in 0..25 {
                    let written = increment(&session).await;
                    let (read, _) = value(&session).await.unwrap();
                    assert!(read >= written, "{read} after {written}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(value(&session).await.unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_in_one_flight_are_all_covered_and_proven() {
    let (cluster, set) = fixture(1, ReadSettings::default()).await;
    cluster.replica(0).pause_replay().await.unwrap();
    let session = set.session();
    let conn = session.write().await.unwrap();
    try_join!(insert(&conn, 2), insert(&conn, 3), insert(&conn, 4)).unwrap();
    drop(conn);
    assert_eq!(count(&session).await, 4);

    // The replica answers a whole flight with old data, and none of it counts.
    let session = set.session_from(&session.token().unwrap());
    let read = session.run_read(async |conn| {
        let conn = &*conn;
        let count = || counters::table.count().get_result::<i64>(conn);
        Ok::<_, Error>(try_join!(count(), count(), count())?)
    });
    assert_eq!(read.await.unwrap(), (4, 4, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_inside_another_one_is_covered_although_the_outer_one_is_rolled_back() {
    let (cluster, set) = fixture(1, ReadSettings::default()).await;
    cluster.replica(0).pause_replay().await.unwrap();
    let session = set.session();
    let inner_session = session.clone();
    let outer = session.run_write(async |tx| {
        insert(tx, 2).await?;
        inner_session.run_write(async |tx| Ok::<_, Error>(insert(tx, 3).await?)).await?;
        // It is not committed yet, so no other connection sees the outer one.
        assert_eq!(count(&inner_session).await, 2);
        Err::<(), _>(Error::from(diesel::result::Error::RollbackTransaction))
    });
    outer.await.unwrap_err();
    assert_eq!(count(&session).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_of_the_pool_takes_no_positions_from_one_session_to_the_next() {
    let (cluster, _set) = fixture(1, ReadSettings::default()).await;
    let set = start(builder_of(cluster.servers()).pool(pools_of(1))).await;
    let (one, other) = (set.session(), set.session());
    increment(&one).await;
    value(&one).await.unwrap();
    let seen = one.token().unwrap();
    increment(&other).await;
    let without: i32 = read_counter(&set.write().await.unwrap()).await.unwrap();
    read_counter(&set.read().await.unwrap()).await.unwrap();
    value(&other).await.unwrap();
    assert_eq!(one.token(), Some(seen), "after {without}");
    assert!(other.token().unwrap().position() > seen.position());

    // Nor does a connection whose user has gone away in the middle of a transaction.
    for micros in [100, 500, 1000, 2000, 3000, 5000] {
        let slow = one.run_write(async |tx| {
            let update = diesel::update(counters::table.find(1)).set(counters::value.eq(counters::value + 1));
            Ok::<_, Error>(update.execute(tx).await?)
        });
        let _ = timeout(Duration::from_micros(micros), slow).await;
        let fresh = set.session();
        let written = increment(&fresh).await;
        assert_eq!(value(&fresh).await.unwrap().0, written);
        // What became of the first one, the session that made it sees.
        assert!(value(&one).await.unwrap().0 <= written);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_session_was_reset_is_asked_again() {
    let (cluster, set) = fixture(1, ReadSettings::default()).await;
    for reset in ["DISCARD ALL", "DEALLOCATE ALL", "RESET ALL"] {
        let session = set.session();
        let conn = session.read().await.unwrap();
        assert_eq!(conn.role(), Role::Replica);
        for _ in 0..3 {
            read_counter(&conn).await.unwrap();
        }
        let before = session.token().unwrap();
        smuggle(&conn, reset).await.unwrap();
        let written = increment(&set.session()).await;
        cluster.wait_caught_up().await.unwrap();
        // Diesel's own statements are gone as well, so this one is not among them.
        let read = diesel::dsl::sql::<diesel::sql_types::Integer>("SELECT value FROM counters /* new */");
        let read: i32 = pointsman::assume_read_only(read).get_result(&conn).await.unwrap();
        assert_eq!(read, written, "{reset}");
        assert!(session.token().unwrap().position() > before.position(), "{reset}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_on_after_the_configuration_was_replaced() {
    let (cluster, set) = fixture(2, ReadSettings::default()).await;
    let session = set.session();
    let kept = session.read().await.unwrap();
    for replica in cluster.replicas() {
        replica.pause_replay().await.unwrap();
    }
    let written = increment(&session).await;
    // One replica leaves, and the pools are made again.
    let [primary, replica, _] = cluster.servers() else { unreachable!("three servers") };
    let smaller = builder_of([primary, replica]).pool(pools_of(3)).build().unwrap();
    let _ = set.reconfigure(smaller).await.unwrap();
    assert_eq!(value(&session).await.unwrap(), (written, Role::Primary));
    drop(kept);
    replica.resume_replay().await.unwrap();
    until("a replica serves the session", async || {
        let (read, role) = value(&session).await.unwrap();
        assert_eq!(read, written);
        role == Role::Replica
    })
    .await
    .unwrap();
}

/// A session kept the cluster of a foreign token for ever, so its own token was foreign from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_forgets_a_foreign_token_goes_on() {
    let (_cluster, set) = fixture(1, ReadSettings::default()).await;
    let session = set.session_from(&CausalToken::new(1, 1, "0/1".parse().unwrap()));
    assert_eq!(causal(value(&session).await.unwrap_err()), CausalError::Foreign);
    session.forget();
    let written = increment(&session).await;
    assert_eq!(value(&session).await.unwrap().0, written);
    assert!(set.session().observe(&session.token().unwrap()), "it is of the set's cluster");
}

/// A session stayed refused after the privilege was there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_refused_a_position_goes_on_once_it_may_ask() {
    let (cluster, set) = fixture(1, ReadSettings::default()).await;
    let change = async |change: &str| {
        let sql = format!("{change} PUBLIC");
        cluster.primary().execute(&sql).await.unwrap();
    };
    change("REVOKE EXECUTE ON FUNCTION pg_current_wal_insert_lsn() FROM").await;
    let session = set.session();
    increment(&session).await;
    assert_eq!(causal(value(&session).await.unwrap_err()), CausalError::NoPosition);
    change("GRANT EXECUTE ON FUNCTION pg_current_wal_insert_lsn() TO").await;
    session.forget();
    let written = increment(&session).await;
    assert_eq!(value(&session).await.unwrap().0, written);
}

/// A token that is one record too early would pass at a replica that stands still right before the write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_each_mode_of_commit_the_token_is_beyond_what_was_replayed_before() {
    let (cluster, set) = fixture(1, ReadSettings::default()).await;
    let replica = cluster.replica(0);
    for mode in ["off", "local", "on", "remote_apply"] {
        for in_transaction in [false, true] {
            replica.resume_replay().await.unwrap();
            cluster.wait_caught_up().await.unwrap();
            replica.pause_replay().await.unwrap();
            let session = set.session();
            let mut conn = session.write().await.unwrap();
            diesel::sql_query(format!("SET synchronous_commit = {mode}")).execute(&conn).await.unwrap();
            let written = if in_transaction {
                conn.transaction(async |tx| add_one(tx).await).await.unwrap()
            } else {
                add_one(&conn).await.unwrap()
            };
            let read = value(&session).await.unwrap();
            assert_eq!(read, (written, Role::Primary), "{mode}, in a transaction: {in_transaction}");
        }
    }
}

async fn add_one(conn: &Conn<Write>) -> QueryResult<i32> {
    let counter = diesel::update(counters::table.find(1)).set(counters::value.eq(counters::value + 1));
    counter.returning(counters::value).get_result(conn).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_commit_that_a_replica_has_applied_that_replica_serves_without_a_wait() {
    let cluster = Cluster::builder().replicas(1).synchronous().start().await.unwrap();
    let sql = "CREATE TABLE counters (id int PRIMARY KEY, value int NOT NULL); \
        INSERT INTO counters VALUES (1, 0); GRANT ALL ON counters TO app";
    cluster.primary().execute(sql).await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    let set = start(builder_of(cluster.servers())).await;
    until("the replica serves", async || set.read().await.is_ok_and(|conn| conn.role() == Role::Replica))
        .await
        .unwrap();
    let session = set.session();
    for _ in 0..20 {
        let written = session.run_write(async |tx| {
            diesel::sql_query("SET LOCAL synchronous_commit = remote_apply").execute(tx).await?;
            Ok::<_, Error>(add_one(tx).await?)
        });
        let written = written.await.unwrap();
        let conn = session.read().await.unwrap();
        assert_eq!((conn.role(), conn.causal_wait()), (Role::Replica, Duration::ZERO));
        assert_eq!(read_counter(&conn).await.unwrap(), written);
    }
}
