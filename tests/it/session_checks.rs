//! Addresses that move: each new session proves that it reached its monitor's server.

use pointsman::testkit::wait::until;
use std::time::Duration;

use pointsman::ReplicaSet;
use pointsman::config::{PoolSettings, ProbeSettings, WriteSettings};
use pointsman::prelude::*;
use pointsman::testkit::{Cluster, Server};
use tokio::time::Instant;

use crate::support::{start, start_cluster, urls_of};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS moves (n int)";

async fn rows(server: &Server) -> u32 {
    server.query_value("SELECT count(*) FROM moves").await.unwrap().parse().unwrap()
}

fn address(server: &Server) -> std::net::SocketAddr {
    ([127, 0, 0, 1], server.port()).into()
}

/// Sessions that are renewed many times a second, and a monitor that probes as rarely as possible.
async fn set_of(server: &Server) -> ReplicaSet {
    let url = server.proxied_url().await.unwrap();
    let pool =
        PoolSettings { max_size: 4, max_lifetime: Duration::from_millis(100), ..PoolSettings::default() };
    let probe = ProbeSettings { interval: Duration::from_secs(4), ..ProbeSettings::default() };
    let writes = WriteSettings { failover_wait: Duration::from_millis(300), ..WriteSettings::default() };
    start(urls_of([url]).pool(pool).probe(probe).writes(writes)).await
}

/// Returns how many writes succeeded.
async fn write_for(set: &ReplicaSet, time: Duration) -> u32 {
    let (began, mut written) = (Instant::now(), 0);
    while began.elapsed() < time {
        let Ok(conn) = set.write().await else { continue };
        written += u32::from(diesel::sql_query("INSERT INTO moves VALUES (1)").execute(&conn).await.is_ok());
    }
    written
}

/// The old server was alive and its monitor still connected to it, while renewed sessions reached another cluster:
/// 1,510 writes were accepted there in 8 s. Once the monitor had followed it there, it never came back.
#[tokio::test]
async fn an_address_that_moved_to_another_cluster_gets_no_write() {
    let (ours, foreign) = tokio::join!(Cluster::builder().start(), Cluster::builder().start());
    let (ours, foreign) = (ours.unwrap(), foreign.unwrap());
    for cluster in [&ours, &foreign] {
        cluster.primary().execute(TABLE).await.unwrap();
    }
    let set = set_of(ours.primary()).await;
    assert!(write_for(&set, Duration::from_millis(300)).await > 0);
    let proxy = ours.primary().proxy().await.unwrap();
    proxy.retarget(address(foreign.primary())).await.unwrap();
    let written = write_for(&set, Duration::from_secs(2)).await;
    assert_eq!(rows(foreign.primary()).await, 0, "writes in the foreign cluster ({written} acknowledged)");
    // Back at its first server, it is in use again by itself, though the foreign server keeps the session of its
    // monitor.
    proxy.retarget(address(ours.primary())).await.unwrap();
    until("the address is back", async || write_for(&set, Duration::from_millis(50)).await > 0)
        .await
        .unwrap();
}

/// A floating address that points to a standby gave sessions to writes that could not write: each write failed with
/// 25006.
#[tokio::test]
async fn an_address_that_moved_to_a_standby_gets_no_write() {
    let cluster = start_cluster(1).await;
    cluster.primary().execute(TABLE).await.unwrap();
    let set = set_of(cluster.primary()).await;
    assert!(write_for(&set, Duration::from_millis(200)).await > 0);
    let proxy = cluster.primary().proxy().await.unwrap();
    proxy.retarget(address(cluster.replica(0))).await.unwrap();
    let (began, mut refused, mut failed) = (Instant::now(), 0, 0);
    while began.elapsed() < Duration::from_secs(1) {
        match set.write().await {
            Err(_) => refused += 1,
            Ok(conn) => {
                let insert = diesel::sql_query("INSERT INTO moves VALUES (1)").execute(&conn).await;
                failed += u32::from(insert.is_err() && !conn.is_closed());
            }
        }
    }
    assert!(refused > 0 && failed == 0, "{refused} refused, {failed} failed on the standby");
}

/// A restarted server has another start time: its sessions are accepted as soon as the monitor has seen it.
#[tokio::test]
async fn a_server_that_was_restarted_is_in_use_again() {
    let cluster = Cluster::builder().proxied().start().await.unwrap();
    cluster.primary().execute(TABLE).await.unwrap();
    let set = set_of(cluster.primary()).await;
    assert!(write_for(&set, Duration::from_millis(100)).await > 0);
    cluster.primary().restart().await.unwrap();
    until("it is in use again", async || write_for(&set, Duration::from_millis(50)).await > 0).await.unwrap();
}
