//! The observations of a probe, with few privileges and with many.

use pointsman::testkit::wait::until;
use std::time::Duration;

use pointsman::CheckoutError;
use pointsman::config::{ProbeSettings, WriteSettings};
use pointsman::testkit::{Cluster, Server};
use pointsman::topology::Health;

use crate::support::{builder_of, fixture, start};

const REVOKE: &str = "REVOKE EXECUTE ON FUNCTION pg_control_system(), pg_control_checkpoint(), \
    pg_control_recovery() FROM PUBLIC";

/// Probes failed with 42501 then, and both nodes were down: no read and no write was served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_stay_up_for_a_role_that_may_not_call_pg_control_functions() {
    let (cluster, set) = fixture(1).await;
    until("all serve", async || set.health().nodes.iter().all(|node| node.status.serves_reads))
        .await
        .unwrap();
    cluster.primary().execute(REVOKE).await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    // The next probes are the first ones of new sessions; the server processes are the same.
    for server in cluster.servers() {
        server
            .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
            .await
            .unwrap();
        until("its monitor is back", async || probes(server).await > 0).await.unwrap();
    }
    let before = set.topology().version;
    until("both answered", async || set.topology().version > before + 4).await.unwrap();
    for node in set.health().nodes {
        assert_eq!((node.status.health, node.status.reason), (Health::Up, None), "{}", node.status.name);
    }
    drop(set.write().await.expect("its identity is remembered as long as it is the same process"));

    let writes = WriteSettings { failover_wait: Duration::ZERO, ..WriteSettings::default() };
    let set = start(builder_of(cluster.servers()).writes(writes)).await;
    until("a read", async || set.read().await.is_ok()).await.unwrap();
    let error = set.write().await.expect_err("nothing tells which cluster it is");
    assert!(matches!(error, CheckoutError::NoPrimary { .. }), "{error}");
    for node in set.health().nodes {
        assert_eq!(node.status.health, Health::Up, "{}", node.status.name);
        let reason = node.status.reason.expect("it says so");
        assert!(reason.contains("GRANT EXECUTE ON FUNCTION pg_control_system()"), "{reason}");
    }
}

async fn probes(server: &Server) -> u32 {
    let sql =
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND query LIKE 'SELECT r.in_recovery%'";
    server.query_value(sql).await.unwrap().parse().unwrap()
}

/// Every probe read the control file of the server for a number that `initdb` had written: 41 of 41.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_system_identifier_is_asked_for_once_per_connection() {
    let cluster = Cluster::builder().setting("log_statement", "all").start().await.unwrap();
    let probe = ProbeSettings { interval: Duration::from_millis(50), ..ProbeSettings::default() };
    let set = start(builder_of(cluster.servers()).probe(probe)).await;
    until("40 probes", async || set.topology().version > 40).await.unwrap();
    drop(set);
    let log = std::fs::read_to_string(cluster.primary().data_dir().with_extension("log")).unwrap();
    let asked = log.matches("pg_control_system").count();
    let (probes, sessions) = (log.matches("pg_is_in_recovery() AS").count(), 1);
    assert!(probes >= 40, "{probes}");
    assert_eq!(asked, sessions, "of {probes} probes");
}
