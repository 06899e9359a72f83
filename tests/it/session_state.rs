//! A user's changes to a session do not reach the next user.

use diesel::sql_types::{Bool, Text};
use pointsman::ReplicaSet;
use pointsman::config::PoolSettings;
use pointsman::prelude::*;
use pointsman::testkit::Server;
use pointsman::testkit::wait::until;

use crate::support::{backend, builder_of, pools_of, smuggle, start, start_cluster, value};

diesel::define_sql_function! {
    /// Sets a setting.
    fn set_config(name: Text, value: Text, local: Bool) -> Text;
}

async fn leave(set: &ReplicaSet, sql: &str) -> String {
    let conn = set.write().await.unwrap();
    smuggle(&conn, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    backend(&conn).await
}

/// Returns a session's last statement, as the server shows it.
async fn last_statement(server: &Server, backend: &str) -> String {
    let sql = format!("SELECT coalesce((SELECT query FROM pg_stat_activity WHERE pid = {backend}), 'ended')");
    server.query_value(&sql).await.unwrap()
}

/// `search_path`, advisory locks and temporary tables of one user were there for the next.
#[tokio::test]
async fn a_session_is_handed_on_without_what_its_user_left_on_it() {
    let cluster = start_cluster(0).await;
    let set = start(builder_of(cluster.servers()).pool(pools_of(1))).await;
    let first = backend(&set.write().await.unwrap()).await;
    for (left, question, clean) in [
        ("SET search_path TO elsewhere", "SELECT current_setting('search_path')", "\"$user\", public"),
        ("SET TIME ZONE 'Asia/Tokyo'", "SELECT current_setting('TimeZone')", "UTC"),
        (
            "SELECT set_config('app.tenant', '7', false)",
            "SELECT coalesce(current_setting('app.tenant', true), '')",
            "",
        ),
        ("SELECT pg_advisory_lock(7)", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", "0"),
        ("CREATE TEMPORARY TABLE secrets (n int)", "SELECT to_regclass('pg_temp.secrets') IS NULL", "true"),
        ("SELECT 1 AS n INTO TEMP secrets", "SELECT to_regclass('pg_temp.secrets') IS NULL", "true"),
        ("LISTEN gossip", "SELECT count(*) FROM pg_listening_channels()", "0"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "SELECT count(*) FROM pg_cursors WHERE name = 'c'", "0"),
        (
            "DO $$ BEGIN PERFORM set_config('app.tenant', '8', false); END $$",
            "SELECT coalesce(current_setting('app.tenant', true), '')",
            "",
        ),
    ] {
        assert_eq!(leave(&set, left).await, first, "{left}");
        let next = set.write().await.unwrap();
        assert_eq!(value(&next, question).await.unwrap(), clean, "after {left}");
        assert_eq!(backend(&next).await, first, "the session was kept after {left}");
    }
    // State that cannot be reset without harm to the driver's own state ends the session.
    for left in ["PREPARE p AS SELECT 1", "DISCARD ALL", "DEALLOCATE ALL"] {
        let before = leave(&set, left).await;
        let next = set.write().await.unwrap();
        assert_ne!(backend(&next).await, before, "after {left}");
        assert_eq!(
            value(&next, "SELECT count(*) FROM pg_prepared_statements WHERE name = 'p'").await.unwrap(),
            "0"
        );
    }
}

/// A prepared statement is parsed once, and changes a setting each time that it is executed from the cache.
#[tokio::test]
async fn a_statement_from_the_cache_is_noticed_each_time() {
    let cluster = start_cluster(0).await;
    let set = start(builder_of(cluster.servers()).pool(pools_of(1))).await;
    let mut backends = Vec::new();
    for tenant in ["1", "2", "3"] {
        let conn = set.write().await.unwrap();
        let of_the_last = "SELECT coalesce(current_setting('app.tenant', true), '')";
        assert_eq!(value(&conn, of_the_last).await.unwrap(), "");
        let set_to: String =
            diesel::select(set_config("app.tenant", tenant, false)).get_result(&conn).await.unwrap();
        assert_eq!(set_to, tenant);
        backends.push(backend(&conn).await);
    }
    backends.dedup();
    assert_eq!(backends.len(), 1, "one session, whose cache was kept");
}

/// Nothing is done, or sent, for a session without changes.
#[tokio::test]
async fn a_session_on_which_nothing_was_set_is_left_alone() {
    let cluster = start_cluster(1).await;
    let set = start(builder_of(cluster.servers()).pool(pools_of(1))).await;
    let server = cluster.primary();
    let conn = set.write().await.unwrap();
    smuggle(&conn, "CREATE TABLE attempts (template text, temperature int)").await.unwrap();
    smuggle(&conn, "SELECT pg_advisory_xact_lock(1)").await.unwrap();
    let first = backend(&conn).await;
    drop(conn);
    assert!(last_statement(server, &first).await.contains("pg_backend_pid"), "nothing was sent after it");
    let conn = set.write().await.unwrap();
    smuggle(&conn, "SET lock_timeout = 100").await.unwrap();
    drop(conn);
    until("the session was reset", async || {
        last_statement(server, &first).await.contains("DISCARD SEQUENCES")
    })
    .await
    .unwrap();
    // Also on a standby, and a read session stays read-only.
    let conn = set.read().await.unwrap();
    let before = backend(&conn).await;
    smuggle(&conn, "SET search_path TO elsewhere").await.unwrap();
    drop(conn);
    let conn = set.read().await.unwrap();
    assert_eq!(value(&conn, "SELECT current_setting('search_path')").await.unwrap(), "\"$user\", public");
    assert_eq!(value(&conn, "SELECT current_setting('default_transaction_read_only')").await.unwrap(), "on");
    assert_eq!(backend(&conn).await, before);
}

/// For programs that change no settings, or intend to keep them.
#[tokio::test]
async fn the_reset_can_be_switched_off() {
    let cluster = start_cluster(0).await;
    let pool = PoolSettings { reset_sessions: false, ..pools_of(1) };
    let set = start(builder_of(cluster.servers()).pool(pool)).await;
    leave(&set, "SET search_path TO elsewhere").await;
    let next = set.write().await.unwrap();
    assert_eq!(value(&next, "SELECT current_setting('search_path')").await.unwrap(), "elsewhere");
}
