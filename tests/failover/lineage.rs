//! Standbys with another history than the primary: reads must not see their data.

use std::sync::Arc;
use std::time::Duration;

use pointsman::config::WriteSettings;
use pointsman::prelude::*;
use pointsman::testkit::{Cluster, Server};
use pointsman::topology::{NodeRole, Topology};
use pointsman::{CheckoutError, ReplicaSet};
use tokio::time::{Instant, sleep, timeout};

use crate::load::{acks, config_of, scene, scene_with, until, until_writable, write_row};

/// A row that only the old primary's history has.
const PHANTOM: i64 = 1_000_000;

async fn insert(server: &Server, id: i64) {
    server.execute(&format!("INSERT INTO acks VALUES ({id})")).await.expect("inserted");
}

async fn has(server: &Server, id: i64) -> bool {
    server.query_value(&format!("SELECT count(*) FROM acks WHERE id = {id}")).await.expect("a count") == "1"
}

async fn until_it_has(server: &Server, id: i64) {
    let wait = async {
        while !has(server, id).await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), wait).await.expect("it replays");
}

/// Counts reads that saw a row that the primary does not have, and lists the nodes that served.
async fn phantoms(set: &ReplicaSet, reads: usize) -> (usize, Vec<String>) {
    let (mut seen, mut nodes) = (0, Vec::new());
    for _ in 0..reads {
        let conn = set.read().await.expect("a read");
        let highest: Option<i64> =
            acks::table.select(diesel::dsl::max(acks::id)).first(&conn).await.expect("a row");
        seen += usize::from(highest >= Some(PHANTOM));
        nodes.push(conn.node().to_owned());
        sleep(Duration::from_millis(2)).await;
    }
    nodes.sort();
    nodes.dedup();
    (seen, nodes)
}

fn serves(name: &str) -> impl Fn(&Arc<Topology>) -> bool + '_ {
    move |topology| topology.node(name).is_some_and(|node| node.serves_reads)
}

fn reason(set: &ReplicaSet, name: &str) -> String {
    set.topology().node(name).and_then(|node| node.reason.clone()).unwrap_or_default()
}

async fn until_primary(set: &ReplicaSet, server: &Server) {
    let name = server.name().to_owned();
    let is_primary =
        move |topology: &Arc<Topology>| topology.node(&name).is_some_and(|n| n.role == NodeRole::Primary);
    until(set, "the new primary is seen", is_primary).await;
}

/// The standby served the row to 400 of 400 reads, "2 ms behind".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_ahead_of_the_promoted_one_serves_nothing_that_the_primary_lacks() {
    let (cluster, set) = scene(2).await;
    let (ahead, heir) = (cluster.replica(0), cluster.replica(1));
    heir.disconnect_from_primary().await.expect("disconnected");
    insert(cluster.primary(), PHANTOM).await;
    until_it_has(ahead, PHANTOM).await;
    cluster.primary().kill().await.expect("killed");
    heir.promote().await.expect("promoted");
    until_primary(&set, heir).await;
    // It asks the new primary in vain: its own history goes on after the fork.
    let _ = timeout(Duration::from_secs(1), ahead.follow(heir)).await;
    write_row(&set, 1).await.expect("a write");
    let (seen, nodes) = phantoms(&set, 400).await;
    assert_eq!((seen, nodes), (0, vec![heir.name().to_owned()]));
    assert!(!serves(ahead.name())(&set.topology()));
    let reason = reason(&set, ahead.name());
    assert!(reason.contains("its history parted from the primary's at"), "{reason}");

    ahead.rebuild(heir).await.expect("rebuilt");
    until(&set, "it serves again", serves(ahead.name())).await;
    assert_eq!(phantoms(&set, 20).await.0, 0);
}

/// 400 of 400 reads saw rows that only the old primary had: the standby was "0.4 s behind".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_goes_on_following_the_old_primary_serves_no_phantom_rows() {
    let (cluster, set) = scene(2).await;
    let (old, heir, behind) = (cluster.primary(), cluster.replica(0), cluster.replica(1));
    heir.promote().await.expect("promoted");
    until_primary(&set, heir).await;
    // Another program that does not know of the promotion.
    let writer = tokio::spawn({
        let old = old.clone();
        async move {
            for i in 0.. {
                insert(&old, PHANTOM + i).await;
                sleep(Duration::from_millis(5)).await;
            }
        }
    });
    until_it_has(behind, PHANTOM).await;
    let (seen, nodes) = phantoms(&set, 400).await;
    assert_eq!((seen, nodes), (0, vec![heir.name().to_owned()]), "{:#?}", set.topology());
    let why = reason(&set, behind.name());
    assert!(why.contains("the primary"), "{why}");
    writer.abort();
    old.kill().await.expect("killed");
    let (seen, nodes) = phantoms(&set, 50).await;
    assert_eq!((seen, nodes), (0, vec![heir.name().to_owned()]));
}

/// As above, but the program cannot see the old primary: only the standby's own position shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_it_if_the_old_primary_cannot_be_seen() {
    let cluster = Cluster::builder().replicas(2).proxied().start().await.expect("a cluster");
    let (old, heir, behind) = (cluster.primary(), cluster.replica(0), cluster.replica(1));
    old.execute("CREATE TABLE acks (id bigint PRIMARY KEY)").await.expect("a table");
    let node = |url: String, server: &Server| {
        pointsman::config::NodeConfig::replica(url).expect("a URL").with_name(server.name())
    };
    let config = config_of([heir, behind]).node(node(old.proxied_url().await.expect("a URL"), old));
    let set = ReplicaSet::connect(config.build().expect("valid")).await.expect("a set");
    until(&set, "all serve", |topology| topology.nodes.iter().all(|node| node.serves_reads)).await;
    old.proxy().await.expect("a proxy").stall().await.expect("stalled");
    heir.promote().await.expect("promoted");
    until_primary(&set, heir).await;
    for i in 0..20 {
        insert(old, PHANTOM + i).await;
        write_row(&set, i).await.expect("a write");
    }
    until_it_has(behind, PHANTOM).await;
    let (seen, nodes) = phantoms(&set, 200).await;
    assert_eq!((seen, nodes), (0, vec![heir.name().to_owned()]), "{:#?}", set.topology());
}

/// A standby that was pointed at the new primary returns promptly, whatever its role may see.
async fn serves_again_after_a_failover(can_monitor: bool) {
    let (cluster, set) = scene_with(2, |config| config).await;
    if can_monitor {
        cluster.primary().execute("GRANT pg_monitor TO app").await.expect("granted");
        cluster.wait_caught_up().await.expect("granted everywhere");
    }
    let (old, heir, other) = (cluster.primary(), cluster.replica(0), cluster.replica(1));
    old.kill().await.expect("killed");
    heir.promote().await.expect("promoted");
    other.follow(heir).await.expect("it follows");
    let began = Instant::now();
    until_writable(&set).await;
    write_row(&set, 1).await.expect("a write");
    until_it_has(other, 1).await;
    let has_it = Instant::now();
    until(&set, "it serves", |topology| {
        let new = topology.node(heir.name()).is_some_and(|node| node.role == NodeRole::Primary);
        new && serves(other.name())(topology)
    })
    .await;
    println!("after a failover, with pg_monitor {can_monitor}: serves after {:?}", has_it.elapsed());
    let served = async {
        while set.read().await.expect("a read").node() != other.name() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), served).await.expect("it serves");
    println!("    {:?} after it was pointed there", began.elapsed());
    assert!(set.topology().node(other.name()).is_some_and(|node| node.reason.is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repointed_standby_serves_again_for_an_ordinary_role() {
    serves_again_after_a_failover(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repointed_standby_serves_again_for_a_role_with_pg_monitor() {
    serves_again_after_a_failover(true).await;
}

/// Promotes a server unknown to the set and points the set's standby there.
///
/// Returns once the old primary is fenced.
async fn gives_the_old_primary_away(can_monitor: bool) {
    let cluster = Cluster::builder().replicas(2).start().await.expect("a cluster");
    let (old, hidden, standby) = (cluster.primary(), cluster.replica(0), cluster.replica(1));
    old.execute("CREATE TABLE acks (id bigint PRIMARY KEY)").await.expect("a table");
    if can_monitor {
        old.execute("GRANT pg_monitor TO app").await.expect("granted");
    }
    cluster.wait_caught_up().await.expect("all the same");
    let writes = WriteSettings { failover_wait: Duration::ZERO, ..WriteSettings::default() };
    let config = config_of([old, standby]).writes(writes).build().expect("valid");
    let set = ReplicaSet::connect(config).await.expect("a set");
    until(&set, "all serve", |topology| topology.nodes.iter().all(|node| node.serves_reads)).await;
    write_row(&set, 1).await.expect("a write on the only primary that there is");
    hidden.promote().await.expect("promoted");
    standby.follow(hidden).await.expect("it follows");
    if !can_monitor {
        // Without the privilege, the sign is that the standby has more WAL than its primary.
        hidden.execute("INSERT INTO acks SELECT generate_series(2, 20000)").await.expect("inserted");
    }
    let name = old.name();
    until(&set, "the old primary is fenced", |topology| {
        topology.node(name).is_some_and(|node| node.role == NodeRole::StalePrimary)
    })
    .await;
    let error = set.write().await.expect_err("a write there would be lost");
    assert!(matches!(error, CheckoutError::NoPrimary { .. }), "{error}");
    // Writes of other programs, which do not know of it, do not lift it.
    old.execute("INSERT INTO acks SELECT generate_series(2, 90000)").await.expect("inserted");
    let before = set.topology().version;
    until_version(&set, before + 6).await;
    assert!(set.write().await.is_err(), "it stays fenced");
}

async fn until_version(set: &ReplicaSet, version: u64) {
    while set.topology().version < version {
        sleep(Duration::from_millis(10)).await;
    }
}

/// The old primary went on taking every write: 145 in 15 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_follows_an_unseen_promotion_fences_the_old_primary_with_pg_monitor() {
    gives_the_old_primary_away(true).await;
}

/// As above, for a role that may not see the timeline: the sign is a standby with more WAL than its primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_has_more_than_its_primary_fences_it_for_an_ordinary_role() {
    gives_the_old_primary_away(false).await;
}
