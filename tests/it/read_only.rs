//! The second layer of the promise: the server refuses writes that get past the types.

use diesel::result::QueryResult;
use pointsman::prelude::*;
use pointsman::testkit::Server;
use pointsman::testkit::wait::until;
use pointsman::{Role, SqlState};

use crate::support::{backend, connect, fixture_with, pools_of, smuggle, start_cluster, value};

const SCHEMA: &str = "\
    CREATE TABLE t (n int); INSERT INTO t VALUES (1); CREATE SEQUENCE s; \
    CREATE FUNCTION write_it() RETURNS int LANGUAGE sql VOLATILE AS 'UPDATE t SET n = n + 1 RETURNING n';";

const SMUGGLED: [&str; 7] = [
    "SELECT nextval('s')",
    "UPDATE t SET n = 2",
    "INSERT INTO t VALUES (2)",
    "DELETE FROM t",
    "SELECT write_it()",
    "SELECT n FROM t FOR UPDATE",
    "CREATE TABLE u (n int)",
];

#[track_caller]
fn assert_refused<T: std::fmt::Debug, I: Intent>(outcome: QueryResult<T>, conn: &Conn<I>, what: &str) {
    assert!(outcome.is_err(), "{what}: {outcome:?}");
    assert_eq!(conn.last_sqlstate(), Some(SqlState::READ_ONLY_SQL_TRANSACTION), "{what}");
}

/// Smuggles every write through the adapter, alone and inside a transaction.
async fn assert_all_refused(conn: &mut Conn<Read>) {
    for sql in SMUGGLED {
        assert_refused(smuggle(conn, sql).await, conn, sql);
        let outcome: QueryResult<usize> = conn.transaction(async |tx| smuggle(tx, sql).await).await;
        assert_refused(outcome, conn, sql);
    }
}

async fn untouched(server: &Server) {
    assert_eq!(server.query_value("SELECT count(*) || ':' || sum(n) FROM t").await.unwrap(), "1:1");
    assert_eq!(server.query_value("SELECT is_called FROM s").await.unwrap(), "f");
}

#[tokio::test]
async fn the_primary_refuses_what_was_smuggled_into_a_read() {
    let cluster = start_cluster(0).await;
    cluster.primary().execute(SCHEMA).await.unwrap();
    let set = connect(&cluster).await;
    let mut conn = set.read().await.unwrap();
    assert_eq!(conn.role(), Role::Primary);
    assert_all_refused(&mut conn).await;
    untouched(cluster.primary()).await;
}

#[tokio::test]
async fn a_replica_refuses_what_was_smuggled_into_a_read() {
    let cluster = start_cluster(1).await;
    cluster.primary().execute(SCHEMA).await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    let set = connect(&cluster).await;
    let mut conn = set.read().await.unwrap();
    assert_eq!(conn.role(), Role::Replica);
    assert_all_refused(&mut conn).await;
    untouched(cluster.primary()).await;
}

#[tokio::test]
async fn read_sessions_from_before_a_promotion_still_refuse_writes_after_it() {
    let cluster = start_cluster(1).await;
    cluster.primary().execute(SCHEMA).await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    let replica = cluster.replica(0);
    let set = connect(&cluster).await;
    let (mut held, idle) = (set.read().await.unwrap(), set.read().await.unwrap());
    let idle_backend = backend(&idle).await;
    let node = held.node().to_owned();
    drop(idle);

    cluster.primary().kill().await.unwrap();
    replica.promote().await.unwrap();
    assert_eq!(value(&held, "SELECT pg_is_in_recovery()").await.unwrap(), "false", "its node takes writes");
    assert_all_refused(&mut held).await;

    until("the promotion is known", async || set.write().await.is_ok_and(|conn| conn.node() == node))
        .await
        .unwrap();
    let mut pooled = set.read().await.unwrap();
    assert_eq!(pooled.role(), Role::Primary);
    assert_eq!(backend(&pooled).await, idle_backend, "it is the session from before");
    assert_all_refused(&mut pooled).await;
    untouched(replica).await;
}

/// An earlier error was still there, and seemed to be the caller's own.
#[tokio::test]
async fn last_sqlstate_is_empty_at_a_new_checkout() {
    let (_cluster, set) = fixture_with(0, SCHEMA, |config| config.pool(pools_of(1))).await;
    let conn = set.read().await.unwrap();
    assert_eq!(conn.last_sqlstate(), None);
    let backend_before = backend(&conn).await;
    assert_refused(smuggle(&conn, "DELETE FROM t").await, &conn, "DELETE");
    drop(conn);
    let conn = set.read().await.unwrap();
    assert_eq!(backend(&conn).await, backend_before, "the same connection");
    assert_eq!(conn.last_sqlstate(), None);
}

/// A smuggled read can run `SET` and `set_config`, whose effects would outlive it.
#[tokio::test]
async fn a_read_session_that_was_made_writable_is_not_reused() {
    let (cluster, set) = fixture_with(0, SCHEMA, |config| config.pool(pools_of(1))).await;
    for sql in [
        "SET default_transaction_read_only = off",
        "SELECT set_config('default_transaction_read_only', 'off', false)",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    ] {
        let conn = set.read().await.unwrap();
        smuggle(&conn, sql).await.unwrap();
        drop(conn);
        let mut conn = set.read().await.unwrap();
        assert_all_refused(&mut conn).await;
    }
    untouched(cluster.primary()).await;
}
