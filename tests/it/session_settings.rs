//! Settings of a role or a database that would break our sessions, and the protection against them.

use pointsman::prelude::*;
use pointsman::testkit::wait::until;
use pointsman::topology::Health;
use pointsman::{Conn, Role};

use crate::support::{backend, connect, start_cluster, value};

async fn setting<I: Intent>(conn: &Conn<I>, name: &str) -> String {
    value(conn, &format!("SELECT current_setting('{name}')")).await.unwrap()
}

/// A standby refuses each statement of a serializable transaction, so each replica was down, and then each read
/// failed.
#[tokio::test]
async fn replicas_serve_a_role_whose_transactions_are_serializable() {
    let cluster = start_cluster(1).await;
    cluster
        .primary()
        .execute("ALTER ROLE app SET default_transaction_isolation = 'serializable'")
        .await
        .unwrap();
    cluster.wait_caught_up().await.unwrap();
    let set = connect(&cluster).await;
    assert!(set.health().nodes.iter().all(|node| node.status.health == Health::Up), "{:?}", set.health());
    for _ in 0..5 {
        let conn = set.read().await.unwrap();
        assert_eq!(conn.role(), Role::Replica);
        let isolation = setting(&conn, "default_transaction_isolation").await;
        assert_eq!(isolation, "repeatable read", "the strictest that a standby has");
    }
    let conn = set.write().await.unwrap();
    assert_eq!(
        setting(&conn, "default_transaction_isolation").await,
        "serializable",
        "the primary can do it"
    );
}

/// An administrator's settings for a role ended the monitor's session or changed the meaning of its statements.
#[tokio::test]
async fn settings_of_a_role_break_no_probe_and_hold_for_its_sessions() {
    let cluster = start_cluster(1).await;
    for (name, value) in [
        ("lock_timeout", "'1ms'"),
        ("idle_session_timeout", "'200ms'"),
        ("idle_in_transaction_session_timeout", "'1ms'"),
        ("default_transaction_deferrable", "on"),
        ("search_path", "nowhere"),
        ("DateStyle", "'German'"),
        ("IntervalStyle", "'sql_standard'"),
        ("TimeZone", "'Pacific/Chatham'"),
        ("client_min_messages", "error"),
    ] {
        cluster.primary().execute(&format!("ALTER ROLE app SET {name} = {value}")).await.unwrap();
    }
    cluster.wait_caught_up().await.unwrap();
    let set = connect(&cluster).await;
    let probing = "SELECT coalesce(string_agg(pid::text, ',' ORDER BY pid), '') FROM pg_stat_activity \
        WHERE usename = 'app' AND query LIKE '%pg_is_wal_replay_paused%'";
    let before = cluster.replica(0).query_value(probing).await.unwrap();
    let conn = set.write().await.unwrap();
    assert_eq!(setting(&conn, "search_path").await, "nowhere", "it is the user's");
    assert_eq!(setting(&conn, "client_min_messages").await, "warning", "what tells of a COMMIT gets through");
    let pid = backend(&conn).await;
    until("the limit ends a user's idle session", async || {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        cluster.primary().query_value(&sql).await.unwrap() == "0"
    })
    .await
    .unwrap();
    let probes = set.health().nodes[1].probes;
    until("it was probed again", async || set.health().nodes[1].probes > probes + 1).await.unwrap();
    assert_eq!(
        cluster.replica(0).query_value(probing).await.unwrap(),
        before,
        "the monitor's session goes on"
    );
    assert_eq!(set.read().await.unwrap().role(), Role::Replica);
}
