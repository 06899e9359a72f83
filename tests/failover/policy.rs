//! Routing policies for reads, seen in the nodes' work.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use pointsman::config::{ConfigBuilder, Fallback, NodeConfig, PoolSettings, ReadSettings, TimeoutSettings};
use pointsman::prelude::*;
use pointsman::testkit::Server;
use pointsman::testkit::wait::until_all_serve;
use pointsman::topology::Health;
use pointsman::{CheckoutError, Error, ReplicaSet};
use tokio::time::Instant;

use crate::fixture::{
    config_of, fixture, fixture_with, proxied_fixture, replica, until_down, until_left_out,
    until_serves_reads, write_row,
};
use crate::load::{print_report, start_load};
use crate::test_error::TestResult;

fn reads(change: impl FnOnce(&mut ReadSettings)) -> ReadSettings {
    let mut reads = ReadSettings::default();
    change(&mut reads);
    reads
}

/// Returns the nodes that serve this many reads, one after the other.
async fn shares(set: &ReplicaSet, rounds: u32) -> TestResult<HashMap<String, u32>> {
    let mut shares = HashMap::new();
    for _ in 0..rounds {
        let conn = set.read().await?;
        *shares.entry(conn.node().to_owned()).or_default() += 1;
    }
    Ok(shares)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fallback_setting_decides_if_the_primary_serves_reads() -> TestResult {
    let timeouts = TimeoutSettings { checkout: Duration::from_millis(500), ..TimeoutSettings::default() };
    let settings = |fallback| reads(|reads| (reads.fallback, reads.max_fallback) = (fallback, 3));
    let (cluster, set) = fixture(1).await?;
    let (primary, replica) = (cluster.primary(), cluster.replica(0));
    let with = |servers: &[Server], fallback| {
        let config = config_of(servers).timeouts(timeouts.clone()).reads(settings(fallback));
        config.build()
    };

    set.reconfigure(with(cluster.servers(), Fallback::Always)?).await?;
    until_serves_reads(&set, replica).await?;
    let shared = shares(&set, 200).await?;
    assert!(shared.values().all(|share| *share > 40) && shared.len() == 2, "{shared:?}");

    set.reconfigure(with(cluster.servers(), Fallback::WhenUnfit)?).await?;
    until_serves_reads(&set, replica).await?;
    let served = shares(&set, 100).await?;
    assert_eq!(served.get(primary.name()), None, "{served:?}");

    // Break.
    replica.kill().await?;
    until_down(&set, replica).await?;
    // Three permits: the fourth read waits, and its error names the reason.
    let held = join_all((0..3).map(|_| set.read())).await;

    assert!(held.iter().all(Result::is_ok));
    let error = set.read().await.expect_err("there is no place left");
    assert!(matches!(error, CheckoutError::FallbackExhausted { limit: 3 }), "{error}");
    let (waiting, ()) = tokio::join!(set.read(), async { drop(held) });
    assert_eq!(waiting?.node(), primary.name());
    // However many ask at once, the server sees three at a time.
    let (now, most) = (AtomicU32::new(0), AtomicU32::new(0));
    let one = async || {
        let conn = set.read().await?;
        most.fetch_max(now.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
        let pause = diesel::dsl::sql::<diesel::sql_types::Text>("pg_sleep(0.01)::text");
        let _: String = diesel::select(pause).get_result(&conn).await?;
        now.fetch_sub(1, Ordering::AcqRel);
        Ok::<_, Error>(())
    };
    try_join_all((0..30).map(|_| one())).await?;
    let most = most.into_inner();
    println!("30 reads fell back to the primary, {most} at once");
    assert_eq!(most, 3);

    set.reconfigure(with(cluster.servers(), Fallback::Never)?).await?;
    let error = set.read().await.expect_err("no replica is there");
    assert!(matches!(error, CheckoutError::NoNode { .. }), "{error}");
    assert!(error.to_string().contains(replica.name()), "{error}");
    set.reconfigure(with(&cluster.servers()[..1], Fallback::Never)?).await?;
    assert_eq!(set.read().await?.node(), primary.name());
    Ok(())
}

/// Under `always` a primary that hung went on getting its share until it was marked down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_hangs_delays_no_read_that_a_replica_can_serve() -> TestResult {
    let settings = reads(|reads| reads.fallback = Fallback::Always);
    let (cluster, set) = fixture_with(1, |config| config.reads(settings)).await?;
    let load = start_load(&set);
    load.done(900).await;

    // Break.
    cluster.primary().pause().await?;
    load.done(600).await;

    // Restore.
    cluster.primary().resume().await?;

    let report = load.stop().await;
    print_report("a primary that serves reads hangs", &report);
    assert_eq!(report.failed_reads().count(), 0, "{report}");
    assert!(report.slowest_read() < Duration::from_millis(250), "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zones_are_preferred_and_weights_count() -> TestResult {
    let (cluster, set) = fixture(2).await?;
    let node = |server: &Server| replica(server.url(), server.name());
    let (near, far) = (cluster.replica(0), cluster.replica(1));
    let with =
        |near: NodeConfig, far: NodeConfig| config_of([cluster.primary()]).node(near).node(far).zone("a");
    let change = async |config: ConfigBuilder| -> TestResult {
        set.reconfigure(config.build()?).await?;
        Ok(())
    };

    change(with(node(near).with_zone("a"), node(far).with_zone("b"))).await?;
    until_all_serve(&set).await?;
    assert_eq!(shares(&set, 100).await?, HashMap::from([(near.name().to_owned(), 100)]));

    // Break.
    near.kill().await?;
    until_down(&set, near).await?;

    assert_eq!(shares(&set, 100).await?, HashMap::from([(far.name().to_owned(), 100)]));

    // Restore.
    near.start().await?;
    let no_ramp = reads(|reads| reads.slow_start = Duration::ZERO);
    let heavy = with(node(near).with_weight(4), node(far).with_weight(1));
    change(heavy.reads(no_ramp)).await?;
    until_all_serve(&set).await?;
    // The load that is held is in proportion to the weights.
    let held: Vec<_> = join_all((0..10).map(|_| set.read())).await.into_iter().flatten().collect();
    let on_near = held.iter().filter(|conn| conn.node() == near.name()).count();

    println!("of 10 reads at once, {on_near} on a node of four times the weight");
    assert!((7..=9).contains(&on_near), "{on_near}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_behind_is_left_out_and_comes_back_by_itself() -> TestResult {
    let settings = reads(|reads| reads.max_lag = Duration::from_secs(1));
    let (cluster, set) = fixture_with(2, |config| config.reads(settings.clone())).await?;
    let (one, other) = (cluster.replica(0), cluster.replica(1));
    let load = start_load(&set);
    load.done(300).await;

    // Break.
    one.disconnect_from_primary().await?;
    let began = Instant::now();
    until_left_out(&set, one).await?;

    let out = began.elapsed();
    let status = set.topology().node(one.name()).cloned().expect("it is in the topology");
    assert_eq!((status.health, status.streaming), (Health::Up, Some(false)));
    assert!(status.reason.as_deref().is_some_and(|reason| reason.contains("behind")), "{status:?}");

    // Restore.
    one.reconnect_to_primary().await?;
    let began = Instant::now();
    until_serves_reads(&set, one).await?;

    println!("disconnected: out after {out:?} (limit 1 s), back {:?} after it streams", began.elapsed());
    assert!((Duration::from_millis(700)..Duration::from_secs(3)).contains(&out), "{out:?}");

    // Break.
    other.set_replay_delay(Duration::from_secs(3)).await?;
    until_left_out(&set, other).await?;

    let lag = set.topology().node(other.name()).and_then(|node| node.lag).and_then(|lag| lag.time);
    assert!(lag.is_some_and(|lag| lag >= Duration::from_secs(1)), "{lag:?}");

    // Restore.
    other.set_replay_delay(Duration::ZERO).await?;
    until_serves_reads(&set, other).await?;

    // The same in bytes.
    let bytes = reads(|reads| reads.max_lag_bytes = Some(4 << 20));
    set.reconfigure(config_of(cluster.servers()).reads(bytes).build()?).await?;
    until_serves_reads(&set, one).await?;
    until_serves_reads(&set, other).await?;

    // Break.
    one.pause_replay().await?;
    let fill =
        "CREATE TABLE wide AS SELECT repeat(md5(i::text), 20) AS t FROM generate_series(1, 20000) AS i";
    cluster.primary().execute(fill).await?;
    until_left_out(&set, one).await?;

    let lag = set.topology().node(one.name()).and_then(|node| node.lag).and_then(|lag| lag.bytes);
    assert!(lag.is_some_and(|lag| lag > 4 << 20), "{lag:?}");

    // Restore.
    one.resume_replay().await?;
    until_serves_reads(&set, one).await?;

    let report = load.stop().await;
    print_report("replicas are behind", &report);
    assert_eq!(report.failed_reads().count(), 0, "{report}");
    Ok(())
}

/// A node that reported that it was starting was used at once when it was back, and was never left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_flaps_is_left_out_longer_each_time_and_still_serves_alone() -> TestResult {
    let settings = reads(|reads| {
        (reads.base_ejection_time, reads.slow_start) =
            (Duration::from_millis(400), Duration::from_millis(100));
    });
    let (cluster, set) = fixture_with(2, |config| config.reads(settings)).await?;
    let (flaps, steady) = (cluster.replica(0), cluster.replica(1));
    let mut outs = Vec::new();

    // Break and restore, several times.
    for _ in 0..4 {
        flaps.kill().await?;
        until_down(&set, flaps).await?;
        flaps.start().await?;
        until_serves_reads(&set, flaps).await?;
        let back = Instant::now();
        while set.read().await?.node() != flaps.name() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(back.elapsed() < Duration::from_secs(10), "it gets reads again");
        }
        outs.push(back.elapsed());
    }

    println!("a replica that flaps is left out for {outs:?}");
    assert!(outs[0] < Duration::from_millis(350), "{outs:?}");
    assert!(outs[2] > Duration::from_millis(600) && outs[3] > Duration::from_millis(1200), "{outs:?}");

    // Break.
    flaps.kill().await?;
    until_down(&set, flaps).await?;

    // Restore.
    flaps.start().await?;
    until_serves_reads(&set, flaps).await?;

    // Break.
    steady.kill().await?;
    until_down(&set, steady).await?;

    assert_eq!(set.read().await?.node(), cluster.primary().name(), "no other node is fit");

    // Break.
    cluster.primary().kill().await?;
    until_down(&set, cluster.primary()).await?;

    assert_eq!(set.read().await?.node(), flaps.name(), "an ejected node is better than none");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exhausted_pool_does_not_mark_its_node_down() -> TestResult {
    let pool = PoolSettings { max_size: 2, ..PoolSettings::default() };
    let timeouts = TimeoutSettings { checkout: Duration::from_millis(400), ..TimeoutSettings::default() };
    let (cluster, set) = fixture(1).await?;
    let config = config_of(cluster.servers()).pool(pool).timeouts(timeouts).build()?;
    set.reconfigure(config).await?;
    until_serves_reads(&set, cluster.replica(0)).await?;
    let held: Vec<_> = join_all((0..2).map(|_| set.read())).await.into_iter().flatten().collect();
    assert!(held.iter().all(|conn| conn.node() == cluster.replica(0).name()));
    let before = set.topology();
    let error = set.read().await.expect_err("all are in use, and the primary is not there for that");
    assert!(matches!(error, CheckoutError::Exhausted { max_size: 2, .. }), "{error}");
    let after = set.topology();
    assert_eq!(before.primary, after.primary);
    assert!(after.nodes.iter().all(|node| node.health == Health::Up && node.serves_reads), "{after:#?}");
    let (waited, ()) = tokio::join!(set.read(), async { drop(held) });
    assert_eq!(waited?.node(), cluster.replica(0).name());
    Ok(())
}

async fn read_number(set: &ReplicaSet) -> Result<i32, Error> {
    set.run_read(async |conn| {
        Ok(diesel::select(diesel::dsl::sql::<diesel::sql_types::Integer>("4711")).get_result(conn).await?)
    })
    .await
}

/// Read connections that were handed out: one for each read, and one for each retry.
fn tries(set: &ReplicaSet) -> u64 {
    set.health().nodes.iter().map(|node| node.reads).sum()
}

/// Reads in a few lanes, each one after the other; returns the longest duration.
async fn read_in_lanes(set: &ReplicaSet, lanes: usize, each: usize) -> TestResult<Duration> {
    let lane = async || {
        let mut slowest = Duration::ZERO;
        for _ in 0..each {
            let began = Instant::now();
            read_number(set).await?;
            slowest = slowest.max(began.elapsed());
        }
        Ok::<_, Error>(slowest)
    };
    Ok(try_join_all((0..lanes).map(|_| lane())).await?.into_iter().max().unwrap_or_default())
}

/// A statement that ended just before its cancellation left a cancel request behind, which cancelled the next user's
/// statement on that connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hedged_reads_avoid_a_slow_replica_and_stay_within_their_budget() -> TestResult {
    let (cluster, set) = proxied_fixture().await?;
    read_in_lanes(&set, 8, 100).await?;

    // One is slow: a read that meets it is answered by the other one.
    let slow = cluster.replica(0).proxy().await?;
    let before = tries(&set);

    // Break.
    slow.latency(Duration::from_millis(250)).await?;
    let slowest = read_in_lanes(&set, 8, 25).await?;

    println!("one of two is 250 ms slow: slowest read {slowest:?}, {} more", tries(&set) - before - 200);
    assert!(slowest < Duration::from_millis(200), "{slowest:?}");

    // Restore.
    slow.pass().await?;

    // All are slow: hedging would only make it slower.
    read_in_lanes(&set, 8, 100).await?;

    // Break.
    for server in cluster.servers() {
        server.proxy().await?.latency(Duration::from_millis(60)).await?;
    }
    let before = tries(&set);
    read_in_lanes(&set, 16, 60).await?;
    let more = tries(&set) - before - 16 * 60;

    println!("all are slow: {more} more reads of {}", 16 * 60);
    // The saved budget may be spent, and a twentieth of the new reads.
    assert!(more <= 100 + 16 * 60 / 20, "{more}");
    Ok(())
}

/// Reads that waited for a connection were not counted, so all reads before the first open connection chose the same
/// node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_returning_replica_gets_few_connections_at_first() -> TestResult {
    let (cluster, set) = proxied_fixture().await?;
    let replica = cluster.replica(0);
    let load = start_load(&set);
    load.done(600).await;

    // Break.
    replica.kill().await?;
    until_down(&set, replica).await?;
    let proxy = replica.proxy().await?;

    // Restore.
    replica.start().await?;
    until_serves_reads(&set, replica).await?;
    let (before, began) = (proxy.accepted(), Instant::now());
    let mut curve = Vec::new();
    while began.elapsed() < Duration::from_secs(2) {
        load.done(200).await;
        curve.push(proxy.accepted() - before);
    }

    let report = load.stop().await;
    print_report("a replica is back", &report);
    println!("    connections since, every third of a second: {curve:?}");
    assert!(curve[0] <= 4, "{curve:?}");
    assert!(curve.iter().all(|connects| *connects <= 12), "{curve:?}");
    assert_eq!(report.failed_reads().count(), 0, "{report}");
    write_row(&set, -1).await?;
    Ok(())
}
