//! Sessions that read their own writes on the replicas, and tokens that carry them.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman::config::{Fallback, ReadSettings};
use pointsman::prelude::*;
use pointsman::testkit::wait::{until, until_writable};
use pointsman::testkit::{Cluster, ignore_causal_tokens};
use pointsman::{
    CausalError, CausalToken, CheckoutError, Error, Lsn, ReadOptions, ReplicaSet, Role, Session, WriteOptions,
};
use tokio::time::{Instant, sleep};

use crate::support::{builder_of, fixture_with, start};

mod interleavings;

diesel::table! { counters (id) { id -> Integer, value -> Integer, } }

/// A cluster with one counter, which all replicas have, and a set of it.
async fn fixture(replicas: usize, reads: ReadSettings) -> (Cluster, ReplicaSet) {
    let sql = "CREATE TABLE counters (id int PRIMARY KEY, value int NOT NULL); \
        INSERT INTO counters VALUES (1, 0); GRANT ALL ON counters TO app";
    fixture_with(replicas, sql, |config| config.reads(reads)).await
}

async fn increment(session: &Session) -> i32 {
    let incremented = session.run_write(async |tx| {
        let counter = diesel::update(counters::table.find(1));
        let value = counter.set(counters::value.eq(counters::value + 1)).returning(counters::value);
        Ok::<i32, Error>(value.get_result(tx).await?)
    });
    incremented.await.unwrap()
}

/// Reads the counter, and returns it with the role that served.
async fn value(session: &Session) -> Result<(i32, Role), Error> {
    let read = session.run_read(async |conn| {
        let value = counters::table.find(1).select(counters::value).first(conn).await?;
        Ok::<_, Error>((value, conn.role()))
    });
    read.await
}

fn causal(error: Error) -> CausalError {
    match error {
        Error::Checkout(CheckoutError::Causal(error)) => error,
        other => panic!("another error: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_reads_its_writes_on_replicas_that_keep_up() {
    let (_cluster, set) = fixture(2, ReadSettings::default()).await;
    let session = set.session();
    assert_eq!(session.token(), None);
    let mut served = BTreeMap::new();
    for _ in 0..200 {
        let written = increment(&session).await;
        let (read, role) = value(&session).await.unwrap();
        assert_eq!(read, written);
        *served.entry(role.as_str()).or_insert(0) += 1;
    }
    let by_replicas = served.get("replica").copied().unwrap_or_default();
    assert!(by_replicas >= 100, "the replicas serve most of the reads: {served:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_stand_still_send_the_reads_of_a_session_to_the_primary_and_no_others() {
    let (cluster, set) = fixture(2, ReadSettings::default()).await;
    let (writer, other) = (set.session(), set.session());

    // Replay stops on one replica: the other one serves.
    cluster.replica(0).pause_replay().await.unwrap();
    for _ in 0..20 {
        let written = increment(&writer).await;
        assert_eq!(value(&writer).await.unwrap().0, written);
    }
    // It stops on both.
    cluster.replica(1).pause_replay().await.unwrap();
    let written = increment(&writer).await;
    assert_eq!(value(&writer).await.unwrap(), (written, Role::Primary));
    let (before, role) = value(&other).await.unwrap();
    assert_eq!(role, Role::Replica, "a session that has not seen the write goes on with the replicas");
    assert!(before < written);

    // A read that must not load the primary says why it cannot be served.
    let never = ReadOptions::new().fallback(Fallback::Never).within(Duration::from_millis(300));
    let refused = writer.read_with(&never).await.unwrap_err();
    assert!(matches!(refused, CheckoutError::Causal(CausalError::NotCaughtUp { .. })), "{refused}");

    // Replay goes on, and so do the replicas.
    cluster.replica(0).resume_replay().await.unwrap();
    cluster.replica(1).resume_replay().await.unwrap();
    until("a replica serves the session", async || value(&writer).await.unwrap().1 == Role::Replica)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_waits_a_little_for_a_replica_that_is_nearly_there() {
    let reads = ReadSettings { causal_wait: Duration::from_secs(10), ..ReadSettings::default() };
    let (cluster, set) = fixture(1, reads).await;
    let delay = Duration::from_millis(300);
    cluster.replica(0).set_replay_delay(delay).await.unwrap();
    let session = set.session();
    let written = increment(&session).await;
    let begin = Instant::now();
    assert_eq!(value(&session).await.unwrap(), (written, Role::Replica));
    assert!(begin.elapsed() >= delay / 2, "the replica was behind: {:?}", begin.elapsed());
    // Without a wait, the primary serves.
    let written = increment(&session).await;
    let conn = session.read_with(&ReadOptions::new().causal_wait(Duration::ZERO)).await.unwrap();
    assert_eq!(conn.role(), Role::Primary);
    let read: i32 = counters::table.find(1).select(counters::value).first(&conn).await.unwrap();
    assert_eq!(read, written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_write_is_covered_as_soon_as_it_is_done() {
    let (cluster, set) = fixture(1, ReadSettings::default()).await;
    cluster.replica(0).pause_replay().await.unwrap();
    let insert =
        |id: i32| diesel::insert_into(counters::table).values((counters::id.eq(id), counters::value.eq(id)));
    let exists = async |session: &Session, id: i32| {
        let conn = session.read().await.unwrap();
        counters::table.find(id).select(counters::id).first::<i32>(&conn).await.is_ok()
    };
    for synchronous_commit in ["off", "local", "on", "remote_apply"] {
        let set_commit = format!("SET synchronous_commit = {synchronous_commit}");
        let first = 10 * (synchronous_commit.len() as i32);

        // One statement outside a transaction, with and without rows.
        let session = set.session();
        let conn = session.write().await.unwrap();
        diesel::sql_query(&set_commit).execute(&conn).await.unwrap();
        insert(first).execute(&conn).await.unwrap();
        assert!(exists(&session, first).await, "execute, {synchronous_commit}");
        let _: i32 = insert(first + 1).returning(counters::id).get_result(&conn).await.unwrap();
        assert!(exists(&session, first + 1).await, "get_result, {synchronous_commit}");

        // A transaction, and one by statements of the caller.
        let mut conn = conn;
        conn.transaction(async |tx| {
            insert(first + 2).execute(tx).await?;
            insert(first + 3).execute(tx).await
        })
        .await
        .unwrap();
        assert!(exists(&session, first + 3).await, "a transaction, {synchronous_commit}");
        for sql in
            ["BEGIN", "INSERT INTO counters VALUES (-1, 1)", "COMMIT", "DELETE FROM counters WHERE id = -1"]
        {
            diesel::sql_query(sql).execute(&conn).await.unwrap();
            if sql == "COMMIT" {
                assert!(exists(&session, -1).await, "a COMMIT of the caller, {synchronous_commit}");
            }
        }
        // Statements of diesel-async on the bare connection.
        let bare: &mut diesel_async::AsyncPgConnection = &mut conn;
        diesel_async::RunQueryDsl::execute(insert(first + 4), bare).await.unwrap();
        drop(conn);
        let session = &session;
        until("it is covered a moment later", async || exists(session, first + 4).await).await.unwrap();

        // A function that runs again.
        let session = set.session();
        session
            .run_write_with(&WriteOptions::new().serializable(), async |tx| {
                diesel::sql_query(&set_commit).execute(tx).await?;
                insert(first + 5).execute(tx).await
            })
            .await
            .unwrap();
        assert!(exists(&session, first + 5).await, "run_write, {synchronous_commit}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_carries_what_was_seen_to_another_program() {
    let (cluster, set) = fixture(2, ReadSettings::default()).await;
    let other_program = start(builder_of(cluster.servers())).await;
    for replica in cluster.replicas() {
        replica.set_replay_delay(Duration::from_millis(200)).await.unwrap();
    }
    for _ in 0..5 {
        let session = set.session();
        let written = increment(&session).await;
        let text = session.token().unwrap().to_string();
        let token: CausalToken = text.parse().unwrap();
        let conn = other_program.read_after(&token).await.unwrap();
        let read: i32 = counters::table.find(1).select(counters::value).first(&conn).await.unwrap();
        assert_eq!(read, written);
        let there = other_program.session_from(&token);
        assert_eq!(value(&there).await.unwrap().0, written);
        // What is read is seen as well.
        let reader = set.session_from(&there.token().unwrap());
        assert!(value(&reader).await.unwrap().0 >= written);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_never_go_backwards_from_one_node_to_the_next() {
    let (cluster, set) = fixture(2, ReadSettings::default()).await;
    cluster.replica(1).set_replay_delay(Duration::from_millis(300)).await.unwrap();
    let writes = {
        let set = set.clone();
        tokio::spawn(async move {
            let session = set.session();
            for _ in 0..100 {
                increment(&session).await;
                sleep(Duration::from_millis(5)).await;
            }
        })
    };
    // One session at a time reads as often as it can, and never sees an older value.
    let (reader, mut last, mut reads) = (set.session(), 0, 0);
    while !writes.is_finished() {
        let (read, _) = value(&reader).await.unwrap();
        assert!(read >= last, "{read} after {last}");
        (last, reads) = (read, reads + 1);
    }
    writes.await.unwrap();
    assert!(reads > 20, "{reads}");
    // The same reads without a session go backwards, so the check can fail.
    let mut backwards = 0;
    let mut last = 0;
    let session = set.session();
    for _ in 0..200 {
        increment(&session).await;
        let read = set.run_read(async |conn| {
            Ok::<i32, Error>(counters::table.find(1).select(counters::value).first(conn).await?)
        });
        let read = read.await.unwrap();
        backwards += i32::from(read < last);
        last = read;
    }
    assert!(backwards > 0, "no read without a session went backwards");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_transaction_of_one_snapshot_the_snapshot_is_new_enough() {
    let reads = ReadSettings { causal_wait: Duration::from_secs(5), ..ReadSettings::default() };
    let (cluster, set) = fixture(1, reads).await;
    cluster.replica(0).set_replay_delay(Duration::from_millis(30)).await.unwrap();
    for _ in 0..20 {
        let session = set.session();
        let written = increment(&session).await;
        let read = session.run_read(async |conn| {
            conn.build_transaction()
                .repeatable_read()
                .run(async |tx| {
                    Ok::<i32, Error>(counters::table.find(1).select(counters::value).first(tx).await?)
                })
                .await
        });
        assert_eq!(read.await.unwrap(), written);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_no_node_can_satisfy_is_an_error_of_its_sender() {
    let (_cluster, set) = fixture(1, ReadSettings::default()).await;
    let session = set.session();
    increment(&session).await;
    let token = session.token().unwrap();
    let primary = || set.health().nodes[0].status.clone();
    let reads_before = set.health().nodes[0].reads;

    let far = Lsn::new(token.position().as_u64() + (1 << 40));
    for (position, timeline) in [(far, token.timeline()), (token.position(), token.timeline() + 7)] {
        let made_up = set.session_from(&CausalToken::new(token.system_identifier(), timeline, position));
        let error = causal(value(&made_up).await.unwrap_err());
        assert_eq!(error, CausalError::Ahead { timeline, position }, "{error}");
        let error = made_up.write().await.unwrap_err();
        assert!(matches!(error, CheckoutError::Causal(CausalError::Ahead { .. })), "{error}");
    }
    let foreign = set.session_from(&CausalToken::new(1, token.timeline(), token.position()));
    assert_eq!(causal(value(&foreign).await.unwrap_err()), CausalError::Foreign);
    assert!(!session.observe(&CausalToken::new(1, token.timeline(), token.position())));
    assert!(primary().serves_writes);
    assert_eq!(set.health().nodes[0].reads, reads_before, "the primary served none of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_a_failover_lost_is_reported_and_one_that_survived_is_read() {
    let (cluster, set) = fixture(2, ReadSettings::default()).await;
    let (survivor, loser) = (set.session(), set.session());
    let survived = increment(&survivor).await;
    cluster.wait_caught_up().await.unwrap();

    // No replica gets the second write, although it was acknowledged.
    for replica in cluster.replicas() {
        replica.disconnect_from_primary().await.unwrap();
    }
    let lost = increment(&loser).await;
    assert_eq!(lost, survived + 1);
    cluster.primary().kill().await.unwrap();
    cluster.replica(0).promote().await.unwrap();
    until_writable(&set).await.unwrap();

    // The lost write is reported to the session that made it, by reads and by writes.
    let error = causal(value(&loser).await.unwrap_err());
    assert!(matches!(error, CausalError::Lost { timeline: 1, .. }), "{error}");
    let error = loser.write().await.unwrap_err();
    assert!(matches!(error, CheckoutError::Causal(CausalError::Lost { .. })), "{error}");
    // It is reported as well by a program that was not there.
    let newcomer = start(builder_of([cluster.replica(0), cluster.replica(1)])).await;
    let token = loser.token().unwrap();
    let error = causal(value(&newcomer.session_from(&token)).await.unwrap_err());
    assert!(matches!(error, CausalError::Lost { .. }), "{error}");

    // The other session goes on, and so does the first one after the report.
    assert_eq!(value(&survivor).await.unwrap().0, survived);
    assert_eq!(increment(&survivor).await, survived + 1);
    loser.forget();
    assert!(value(&loser).await.unwrap().0 >= survived);
    assert_eq!(survivor.token().unwrap().timeline(), 2);
}

/// A session's position without the privilege is an error, not a stale read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_tell_its_position_fails_the_session_and_no_other() {
    let (cluster, set) = fixture(1, ReadSettings::default()).await;
    cluster
        .primary()
        .execute("REVOKE EXECUTE ON FUNCTION pg_current_wal_insert_lsn() FROM PUBLIC")
        .await
        .unwrap();
    let session = set.session();
    increment(&session).await;
    let error = causal(value(&session).await.unwrap_err());
    assert_eq!(error, CausalError::NoPosition);
    set.write().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_connection_was_lost_asks_the_primary_or_says_that_it_does_not_know() {
    let (cluster, set) = fixture(1, ReadSettings::default()).await;
    let lose_a_connection = async |session: &Session| {
        let conn = session.write().await.unwrap();
        let terminate = diesel::sql_query("SELECT pg_terminate_backend(pg_backend_pid())");
        terminate.execute(&conn).await.unwrap_err();
    };
    // The primary goes on: its present position covers whatever the session did.
    let session = set.session();
    let written = increment(&session).await;
    lose_a_connection(&session).await;
    assert_eq!(value(&session).await.unwrap().0, written);

    // After a failover, it cannot be known if what was done on the connection survived.
    lose_a_connection(&session).await;
    cluster.primary().kill().await.unwrap();
    cluster.replica(0).promote().await.unwrap();
    until_writable(&set).await.unwrap();
    let error = causal(value(&session).await.unwrap_err());
    assert_eq!(error, CausalError::PositionUnknown { timeline: 1 });
    session.forget();
    assert_eq!(value(&session).await.unwrap().0, written);
}

/// Each read of a session waited for replicas that were never there in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_do_not_wait_for_a_replica_that_is_always_late() {
    let reads = ReadSettings { causal_wait: Duration::from_millis(50), ..ReadSettings::default() };
    let (cluster, set) = fixture(1, reads).await;
    cluster.replica(0).pause_replay().await.unwrap();
    let session = set.session();
    increment(&session).await;
    let mut at_once = 0;
    for _ in 0..30 {
        let conn = session.read().await.unwrap();
        assert_eq!(conn.role(), Role::Primary);
        at_once += usize::from(conn.causal_wait().is_zero());
    }
    assert!(at_once >= 20, "{at_once} of 30 reads did not wait");
    cluster.replica(0).resume_replay().await.unwrap();
    until("the replica serves again", async || session.read().await.unwrap().role() == Role::Replica)
        .await
        .unwrap();
}

/// The other tests of this file are worth nothing if this one fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_that_ignores_tokens_serves_stale_reads() {
    let (cluster, set) = fixture(1, ReadSettings::default()).await;
    cluster.replica(0).pause_replay().await.unwrap();
    let session = set.session();
    let written = increment(&session).await;
    assert_eq!(value(&session).await.unwrap().0, written);
    ignore_causal_tokens(&set);
    assert_eq!(value(&session).await.unwrap(), (written - 1, Role::Replica));
}
