//! Standbys with another history than the primary: reads must not see their data.

use std::time::Duration;

use pointsman::config::WriteSettings;
use pointsman::prelude::*;
use pointsman::testkit::wait::{until, until_role, until_topology, until_writable};
use pointsman::testkit::{Cluster, Server};
use pointsman::topology::NodeRole;
use pointsman::{CheckoutError, ReplicaSet};
use tokio::time::{Instant, sleep, timeout};

use crate::fixture::{
    CREATE_ACKS, acks, config_of, connect, count_acks, fixture, reason, replica, until_primary,
    until_serves_reads, write_row,
};
use crate::test_error::TestResult;

/// A row that only the old primary's history has.
const PHANTOM: i64 = 1_000_000;

async fn insert(server: &Server, id: i64) -> TestResult {
    server.execute(&format!("INSERT INTO acks VALUES ({id})")).await?;
    Ok(())
}

async fn until_it_has(server: &Server, id: i64) -> TestResult {
    let condition = format!("id = {id}");
    let replayed = async || count_acks(server, &condition).await.is_ok_and(|count| count == 1);
    Ok(until("the row is replayed", replayed).await?)
}

/// Counts reads that saw a row that the primary does not have, and lists the nodes that served.
async fn phantoms(set: &ReplicaSet, reads: usize) -> TestResult<(usize, Vec<String>)> {
    let (mut seen, mut nodes) = (0, Vec::new());
    for _ in 0..reads {
        let conn = set.read().await?;
        let highest: Option<i64> = acks::table.select(diesel::dsl::max(acks::id)).first(&conn).await?;
        seen += usize::from(highest >= Some(PHANTOM));
        nodes.push(conn.node().to_owned());
        sleep(Duration::from_millis(2)).await;
    }
    nodes.sort();
    nodes.dedup();
    Ok((seen, nodes))
}

fn serves_reads(set: &ReplicaSet, server: &Server) -> bool {
    set.topology().node(server.name()).is_some_and(|node| node.serves_reads)
}

/// The standby served the row to 400 of 400 reads, "2 ms behind".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_ahead_of_the_promoted_one_serves_no_phantom_rows() -> TestResult {
    let (cluster, set) = fixture(2).await?;
    let (ahead, new_primary) = (cluster.replica(0), cluster.replica(1));

    // Break.
    new_primary.disconnect_from_primary().await?;
    insert(cluster.primary(), PHANTOM).await?;
    until_it_has(ahead, PHANTOM).await?;
    cluster.primary().kill().await?;
    new_primary.promote().await?;
    until_primary(&set, new_primary).await?;
    // It asks the new primary in vain: its own history goes on after the fork.
    let _ = timeout(Duration::from_secs(1), ahead.follow(new_primary)).await;
    write_row(&set, 1).await?;

    let (seen, nodes) = phantoms(&set, 400).await?;
    assert_eq!((seen, nodes), (0, vec![new_primary.name().to_owned()]));
    assert!(!serves_reads(&set, ahead));
    let reason = reason(&set, ahead.name());
    assert!(reason.contains("its history parted from the primary's at"), "{reason}");

    // Restore.
    ahead.rebuild(new_primary).await?;
    until_serves_reads(&set, ahead).await?;

    assert_eq!(phantoms(&set, 20).await?.0, 0);
    Ok(())
}

/// 400 of 400 reads saw rows that only the old primary had: the standby was "0.4 s behind".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_goes_on_following_the_old_primary_serves_no_phantom_rows() -> TestResult {
    let (cluster, set) = fixture(2).await?;
    let (old, new_primary, behind) = (cluster.primary(), cluster.replica(0), cluster.replica(1));

    // Break.
    new_primary.promote().await?;
    until_primary(&set, new_primary).await?;
    // Another program that does not know of the promotion.
    let writer = tokio::spawn({
        let old = old.clone();
        async move {
            for i in 0.. {
                insert(&old, PHANTOM + i).await.expect("inserted");
                sleep(Duration::from_millis(5)).await;
            }
        }
    });
    until_it_has(behind, PHANTOM).await?;

    let (seen, nodes) = phantoms(&set, 400).await?;
    assert_eq!((seen, nodes), (0, vec![new_primary.name().to_owned()]), "{:#?}", set.topology());
    let why = reason(&set, behind.name());
    assert!(why.contains("the primary"), "{why}");
    writer.abort();

    // Break.
    old.kill().await?;

    let (seen, nodes) = phantoms(&set, 50).await?;
    assert_eq!((seen, nodes), (0, vec![new_primary.name().to_owned()]));
    Ok(())
}

/// As above, but the program cannot see the old primary: only the standby's own position shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_of_an_unreachable_old_primary_serves_no_phantom_rows() -> TestResult {
    let cluster = Cluster::builder().replicas(2).proxied().start().await?;
    let (old, new_primary, behind) = (cluster.primary(), cluster.replica(0), cluster.replica(1));
    old.execute(CREATE_ACKS).await?;
    let proxied = replica(old.proxied_url().await?, old.name());
    let set = connect(config_of([new_primary, behind]).node(proxied)).await?;

    // Break.
    old.proxy().await?.stall().await?;
    new_primary.promote().await?;
    until_primary(&set, new_primary).await?;
    for i in 0..20 {
        insert(old, PHANTOM + i).await?;
        write_row(&set, i).await?;
    }
    until_it_has(behind, PHANTOM).await?;

    let (seen, nodes) = phantoms(&set, 200).await?;
    assert_eq!((seen, nodes), (0, vec![new_primary.name().to_owned()]), "{:#?}", set.topology());
    Ok(())
}

/// A standby that was pointed at the new primary returns promptly, whatever its role may see.
async fn serves_again_after_a_failover(can_monitor: bool) -> TestResult {
    let (cluster, set) = fixture(2).await?;
    if can_monitor {
        cluster.primary().execute("GRANT pg_monitor TO app").await?;
        cluster.wait_caught_up().await?;
    }
    let (old, new_primary, other) = (cluster.primary(), cluster.replica(0), cluster.replica(1));
    old.kill().await?;
    new_primary.promote().await?;
    other.follow(new_primary).await?;
    let began = Instant::now();
    until_writable(&set).await?;
    write_row(&set, 1).await?;
    until_it_has(other, 1).await?;
    let has_it = Instant::now();
    until_topology(&set, "the new primary has its role, and the standby serves", |topology| {
        let new = topology.node(new_primary.name()).is_some_and(|node| node.role == NodeRole::Primary);
        new && topology.node(other.name()).is_some_and(|node| node.serves_reads)
    })
    .await?;
    println!("after a failover, with pg_monitor {can_monitor}: serves after {:?}", has_it.elapsed());
    let served = async {
        while set.read().await?.node() != other.name() {
            sleep(Duration::from_millis(5)).await;
        }
        Ok::<_, CheckoutError>(())
    };
    timeout(Duration::from_secs(5), served).await??;
    println!("    {:?} after it was pointed there", began.elapsed());
    assert!(set.topology().node(other.name()).is_some_and(|node| node.reason.is_none()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repointed_standby_serves_again_for_an_ordinary_role() -> TestResult {
    serves_again_after_a_failover(false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repointed_standby_serves_again_for_a_role_with_pg_monitor() -> TestResult {
    serves_again_after_a_failover(true).await
}

/// Promotes a server unknown to the set and points the set's standby there.
///
/// Returns once the old primary is fenced.
async fn fences_the_primary_of_a_repointed_standby(can_monitor: bool) -> TestResult {
    let cluster = Cluster::builder().replicas(2).start().await?;
    let (old, hidden, standby) = (cluster.primary(), cluster.replica(0), cluster.replica(1));
    old.execute(CREATE_ACKS).await?;
    if can_monitor {
        old.execute("GRANT pg_monitor TO app").await?;
    }
    cluster.wait_caught_up().await?;
    let writes = WriteSettings { failover_wait: Duration::ZERO, ..WriteSettings::default() };
    let set = connect(config_of([old, standby]).writes(writes)).await?;
    write_row(&set, 1).await?;
    hidden.promote().await?;
    standby.follow(hidden).await?;
    if !can_monitor {
        // Without the privilege, the sign is that the standby has more WAL than its primary.
        hidden.execute("INSERT INTO acks SELECT generate_series(2, 20000)").await?;
    }
    until_role(&set, old.name(), NodeRole::StalePrimary).await?;
    let error = set.write().await.expect_err("a write there would be lost");
    assert!(matches!(error, CheckoutError::NoPrimary { .. }), "{error}");
    // Writes of other programs, which do not know of it, do not lift it.
    old.execute("INSERT INTO acks SELECT generate_series(2, 90000)").await?;
    let before = set.topology().version;
    // A probe that changes no role or health is not published to `watch`.
    until("it was probed a few times", async || set.topology().version >= before + 6).await?;
    assert!(set.write().await.is_err(), "it stays fenced");
    Ok(())
}

/// The old primary went on taking every write: 145 in 15 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_follows_an_unseen_promotion_fences_the_old_primary_with_pg_monitor() -> TestResult {
    fences_the_primary_of_a_repointed_standby(true).await
}

/// As above, for a role that may not see the timeline: the sign is a standby with more WAL than its primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_has_more_than_its_primary_fences_it_for_an_ordinary_role() -> TestResult {
    fences_the_primary_of_a_repointed_standby(false).await
}
