//! PgBouncer between the set and a server: it serves in session mode, and is refused by name in the others.

use std::time::Duration;

use pointsman::config::{TimeoutSettings, WriteSettings};
use pointsman::testkit::Proxy;
use pointsman::{CheckoutError, Role, SqlState};

use crate::support::pgbouncer::PgBouncer;
use crate::support::{smuggle, start, start_cluster, urls_of, value};

const SOON: Duration = Duration::from_secs(1);
const USUAL: &str = "ignore_startup_parameters = options";

/// Its sessions report `default_transaction_read_only = off`, so each was discarded and dialled again: 1,000 to 1,700
/// logins a second, and no read was ever served.
#[tokio::test]
async fn a_pooler_in_session_mode_serves_reads_and_writes_with_few_logins() {
    let cluster = start_cluster(0).await;
    let server = cluster.primary();
    server.execute("CREATE TABLE t (n int)").await.unwrap();
    let bouncer = PgBouncer::start(server, "session", USUAL).await;
    let proxy = Proxy::start(bouncer.address).await.unwrap();
    let timeouts =
        TimeoutSettings { read_statement: Some(Duration::from_secs(7)), ..TimeoutSettings::default() };
    let set = start(urls_of([bouncer.url(proxy.addr())]).timeouts(timeouts)).await;
    for _ in 0..50 {
        let conn = set.read().await.unwrap_or_else(|e| panic!("{} logins: {e}", proxy.accepted()));
        assert_eq!(value(&conn, "SELECT 1").await.unwrap(), "1");
        drop(conn);
        let conn = set.write().await.expect("a session to write");
        assert_eq!(conn.role(), Role::Primary);
        smuggle(&conn, "INSERT INTO t VALUES (1)").await.expect("a write");
    }
    assert!(proxy.accepted() <= 8, "{} logins for 100 checkouts", proxy.accepted());
    assert_eq!(server.query_value("SELECT count(*) FROM t").await.unwrap(), "50");

    let conn = set.read().await.unwrap();
    assert_eq!(value(&conn, "SELECT current_setting('statement_timeout')").await.unwrap(), "7s");
    smuggle(&conn, "INSERT INTO t VALUES (1)").await.expect_err("the server refuses it, too");
    assert_eq!(conn.last_sqlstate(), Some(SqlState::READ_ONLY_SQL_TRANSACTION));
}

/// The state of sessions was lost without a word: the read-only setting, locks, prepared statements.
#[tokio::test]
async fn a_pooler_that_shares_sessions_is_refused_by_name() {
    let cluster = start_cluster(0).await;
    for mode in ["transaction", "statement"] {
        let bouncer = PgBouncer::start(cluster.primary(), mode, USUAL).await;
        let proxy = Proxy::start(bouncer.address).await.unwrap();
        let timeouts = TimeoutSettings { checkout: SOON, ..TimeoutSettings::default() };
        let writes = WriteSettings { failover_wait: SOON, ..WriteSettings::default() };
        let set = start(urls_of([bouncer.url(proxy.addr())]).timeouts(timeouts).writes(writes)).await;
        let errors: [CheckoutError; 2] = [set.read().await.unwrap_err(), set.write().await.unwrap_err()];
        for error in errors {
            assert!(error.to_string().contains("pool_mode = session"), "{mode}: {error}");
        }
        assert!(proxy.accepted() < 40, "{mode}: {} logins", proxy.accepted());
    }
}

/// The error was "the server did not let the session begin", without the reason.
#[tokio::test]
async fn the_error_quotes_the_message_of_the_server() {
    let cluster = start_cluster(0).await;
    let bouncer = PgBouncer::start(cluster.primary(), "session", "").await;
    let writes = WriteSettings { failover_wait: SOON, ..WriteSettings::default() };
    let set = start(urls_of([bouncer.url(bouncer.address)]).writes(writes)).await;
    let error = set.write().await.unwrap_err().to_string();
    assert!(error.contains("did not let the session begin: unsupported startup parameter"), "{error}");
}
