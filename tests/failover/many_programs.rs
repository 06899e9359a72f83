//! Many programs on one cluster: their cost in normal operation, without a primary, and on recovery.
//!
//! Twenty sets with the default settings stand for twenty programs. `docs/deployment.md` quotes what this prints.

use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use pointsman::prelude::*;
use pointsman::testkit::Cluster;
use pointsman::testkit::wait::{until_all_serve, until_no_primary};
use pointsman::{Config, ReplicaSet};
use tokio::time::{Instant, sleep, timeout};

use crate::test_error::TestResult;

const PROGRAMS: u32 = 20;
/// Callers of each program that wait during recovery; as many as a pool has connections.
const CALLERS: usize = 10;

/// Probes of one node so far, by all programs.
fn probes(sets: &[ReplicaSet], node: usize) -> u64 {
    sets.iter().map(|set| set.health().nodes[node].probes).sum()
}

/// Probes a second of one node in the time of a pause, by one program.
async fn probe_rate(sets: &[ReplicaSet], node: usize, pause: Duration) -> f64 {
    let (before, began) = (probes(sets, node), Instant::now());
    sleep(pause).await;
    let count = u32::try_from(probes(sets, node) - before).expect("not that many");
    f64::from(count) / began.elapsed().as_secs_f64() / f64::from(PROGRAMS)
}

/// Connections that the proxies accepted.
async fn connects(cluster: &Cluster) -> Vec<u64> {
    let proxies = join_all(cluster.servers().iter().map(|server| server.proxy())).await;
    proxies.into_iter().map(|proxy| proxy.expect("a proxy").accepted()).collect()
}

/// Writes and reads of one program that wait until each is served.
async fn callers(set: ReplicaSet) {
    let reads = (0..CALLERS).map(|_| async {
        while set.read().await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    });
    let writes = (0..CALLERS).map(|_| async {
        let conn = set.write().await.expect("a primary comes back");
        diesel::sql_query("SELECT 1").execute(&conn).await.expect("it works");
    });
    tokio::join!(join_all(reads), join_all(writes));
}

/// Without a primary, each program probed each replica 32 times a second for the whole time. When everything came back
/// at once, 30 programs opened 483 sessions on the primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_programs_probe_seldom_and_connect_slowly_while_a_cluster_comes_back() -> TestResult {
    let cluster = Cluster::builder().replicas(2).proxied().setting("max_connections", "500").start().await?;
    let urls = try_join_all(cluster.servers().iter().map(|server| server.proxied_url())).await?;
    let config = || {
        let primary = Config::builder().primary(&urls[0]);
        urls[1..].iter().fold(primary, |config, url| config.replica(url)).build()
    };
    let configs = (0..PROGRAMS).map(|_| config()).collect::<Result<Vec<_>, _>>()?;
    let sets = try_join_all(configs.into_iter().map(ReplicaSet::connect)).await?;
    try_join_all(sets.iter().map(until_all_serve)).await?;

    // All is well: few probes.
    let well = probe_rate(&sets, 1, Duration::from_secs(4)).await;
    println!("all is well: {well:.2} probes a second of each node by each program");

    // The primary dies: the search is fast at first, and slows down.
    cluster.primary().kill().await?;
    try_join_all(sets.iter().map(until_no_primary)).await?;
    let first = probe_rate(&sets, 1, Duration::from_secs(1)).await;
    sleep(Duration::from_secs(5)).await;
    let later = probe_rate(&sets, 1, Duration::from_secs(2)).await;
    println!("no primary: {first:.1} probes a second at first, {later:.1} after six seconds");

    // The replicas die as well, and callers of all programs wait.
    for replica in cluster.replicas() {
        replica.kill().await?;
    }
    let callers: Vec<_> = sets.iter().map(|set| tokio::spawn(callers(set.clone()))).collect();
    sleep(Duration::from_secs(2)).await;
    // All servers return: the callers are served, and the connects stay bounded.
    let before = connects(&cluster).await;
    let began = Instant::now();
    for server in cluster.servers() {
        server.start().await?;
    }
    timeout(Duration::from_secs(40), join_all(callers)).await?;
    try_join_all(sets.iter().map(until_all_serve)).await?;
    let took = began.elapsed();
    let after = connects(&cluster).await;
    let opened: Vec<_> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pointsman'";
    let open = cluster.primary().query_value(open).await?;
    println!(
        "all back {took:?} after the first start: {opened:?} connects, {open} sessions open on the primary"
    );

    let interval = sets[0].config().probe().interval.as_secs_f64();
    assert!(well < 1.3 / interval, "{well} probes a second");
    assert!(later < 2.0 / interval, "{later} probes a second, and {first} at first");
    let most = u64::from(PROGRAMS) * (1 + 2 * CALLERS as u64);
    assert!(opened.iter().all(|opened| *opened <= 2 * most), "{opened:?}");
    Ok(())
}
