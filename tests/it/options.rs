//! Options of single calls: a preference for the primary, and the time limit of a call.

use pointsman::testkit::wait::{until, until_all_serve, until_no_primary};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use pointsman::config::{Fallback, NodeConfig, ReadSettings};
use pointsman::prelude::*;
use pointsman::{CheckoutError, Error, ReadOptions, ReplicaSet, Role, WriteOptions};
use tokio::time::{Instant, sleep};

use crate::support::{builder_of, fixture_with, pools_of, start, start_cluster, value};

/// Far less than the defaults of 5 s for a checkout and 45 s for a primary, and far more than a call that does not
/// wait.
const SOON: Duration = Duration::from_secs(2);

fn reads(fallback: Fallback, max_fallback: u32) -> ReadSettings {
    ReadSettings { fallback, max_fallback, ..ReadSettings::default() }
}

/// The roles of the nodes that serve this many reads at once, and the connections.
async fn roles(set: &ReplicaSet, options: &ReadOptions, count: usize) -> (Vec<Role>, Vec<Conn<Read>>) {
    let conns = join_all((0..count).map(|_| set.read_with(options))).await;
    let conns: Vec<_> = conns.into_iter().map(|conn| conn.expect("a connection")).collect();
    (conns.iter().map(Conn::role).collect(), conns)
}

fn on_primary(roles: &[Role]) -> usize {
    roles.iter().filter(|role| **role == Role::Primary).count()
}

/// Waits until the primary serves as many concurrent reads as permitted, and never more. A preference yields while
/// sessions are still being opened.
async fn until_on_primary(set: &ReplicaSet, options: &ReadOptions, most: usize) -> Vec<Conn<Read>> {
    let mut held = Vec::new();
    until("the primary serves its share", async || {
        held.clear();
        let (roles, conns) = roles(set, options, most + 2).await;
        held = conns;
        assert!(on_primary(&roles) <= most, "{roles:?}");
        on_primary(&roles) == most
    })
    .await
    .unwrap();
    held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_comes_first_within_its_limit_and_a_replica_otherwise() {
    let (cluster, set) = fixture_with(2, "", |config| config.reads(reads(Fallback::WhenUnfit, 2))).await;
    let preferred = ReadOptions::new().prefer_primary();
    assert_eq!(set.read().await.unwrap().role(), Role::Replica);

    // Two permits: replicas serve the other reads without a wait.
    let held = until_on_primary(&set, &preferred, 2).await;
    let began = Instant::now();
    assert_eq!(set.read_prefer_primary().await.unwrap().role(), Role::Replica);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    drop(held);

    // They are the permits of reads that fall back.
    let held = until_on_primary(&set, &preferred, 2).await;
    for replica in cluster.replicas() {
        replica.kill().await.unwrap();
    }
    until("no replica serves", async || {
        set.health().nodes.iter().skip(1).all(|node| !node.status.serves_reads)
    })
    .await
    .unwrap();
    let short = ReadOptions::new().within(Duration::from_millis(200));
    let error = set.read_with(&short).await.expect_err("both places are taken");
    assert!(matches!(error, CheckoutError::FallbackExhausted { limit: 2 }), "{error}");
    drop(held);
    assert_eq!(set.read_prefer_primary().await.unwrap().role(), Role::Primary);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fallback_setting_holds_for_reads_that_prefer_the_primary() {
    let (cluster, set) = fixture_with(1, "", |config| config.reads(reads(Fallback::Never, 1))).await;
    let preferred = ReadOptions::new().prefer_primary();
    let (never, conns) = roles(&set, &preferred, 3).await;
    assert_eq!(on_primary(&never), 0, "{never:?}");
    drop(conns);
    // A call may state another policy; the limit stays.
    drop(until_on_primary(&set, &preferred.clone().fallback(Fallback::WhenUnfit), 1).await);

    let config = builder_of(cluster.servers()).reads(reads(Fallback::Always, 1)).build().unwrap();
    set.reconfigure(config).await.unwrap();
    until_all_serve(&set).await.unwrap();
    until("the primary serves as a replica does", async || {
        set.read().await.is_ok_and(|conn| conn.role() == Role::Primary)
    })
    .await
    .unwrap();
    let (never, conns) = roles(&set, &ReadOptions::new().fallback(Fallback::Never), 8).await;
    assert_eq!(on_primary(&never), 0, "{never:?}");
    drop(conns);
    until("the primary comes first", async || {
        let roles = roles(&set, &preferred, 1).await.0;
        on_primary(&roles) == 1
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_serves_if_the_primary_that_was_preferred_is_busy_or_gone() {
    let (cluster, set) = fixture_with(1, "", |config| config.pool(pools_of(1))).await;
    let mut held = None;
    until("the primary serves", async || {
        held = set.read_prefer_primary().await.ok();
        held.as_ref().is_some_and(|conn| conn.role() == Role::Primary)
    })
    .await
    .unwrap();
    let began = Instant::now();
    let other = set.read_prefer_primary().await.unwrap();
    assert_eq!(other.role(), Role::Replica);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    drop((held, other));

    cluster.primary().kill().await.unwrap();
    let preferred = ReadOptions::new().prefer_primary();
    let asked = set.run_read_with(&preferred, async |conn| -> Result<Role, Error> {
        value(conn, "SELECT 1").await?;
        Ok(conn.role())
    });
    assert_eq!(asked.await.expect("an answer, before the set has noticed as well"), Role::Replica);
    until_no_primary(&set).await.unwrap();
    assert_eq!(set.read_prefer_primary().await.unwrap().role(), Role::Replica);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_read_on_the_preferred_primary_is_tried_on_a_replica_unless_its_time_is_up() {
    // The second attempt comes after four times as long.
    let hedge_min_delay = Duration::from_millis(250);
    let (_cluster, set) = fixture_with(1, "", |config| {
        config.reads(ReadSettings { hedge_min_delay, ..ReadSettings::default() })
    })
    .await;
    let slow_on_primary = "SELECT pg_sleep(CASE WHEN pg_is_in_recovery() THEN 0 ELSE 2 END)";
    let run = async |options: &ReadOptions| -> Vec<Role> {
        let ran_on: Mutex<Vec<Role>> = Mutex::default();
        let outcome = set.run_read_with(options, async |conn| -> Result<String, Error> {
            ran_on.lock().unwrap().push(conn.role());
            Ok(value(conn, slow_on_primary).await?)
        });
        outcome.await.expect("an answer");
        ran_on.into_inner().unwrap()
    };
    until("the primary has a session for it", async || {
        set.read_prefer_primary().await.is_ok_and(|conn| conn.role() == Role::Primary)
    })
    .await
    .unwrap();
    let preferred = ReadOptions::new().prefer_primary();
    assert_eq!(run(&preferred.clone().within(hedge_min_delay * 3)).await, [Role::Primary]);
    assert_eq!(run(&preferred).await, [Role::Primary, Role::Replica]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_timeout_of_a_call_limits_its_wait_for_a_connection() {
    let (_cluster, set) = fixture_with(0, "", |config| config.pool(pools_of(1))).await;
    // Nothing idle is there yet, and none is made without waiting.
    let at_once = ReadOptions::new().within(Duration::ZERO);
    set.read_with(&at_once).await.expect_err("no connection is idle");
    drop(set.read_with(&ReadOptions::new().within(Duration::MAX)).await.unwrap());
    let mut held = None;
    until("it is idle", async || {
        held = set.read_with(&at_once).await.ok();
        held.is_some()
    })
    .await
    .unwrap();
    for limit in [Duration::ZERO, Duration::from_millis(200)] {
        let began = Instant::now();
        let error = set.read_with(&ReadOptions::new().within(limit)).await.expect_err("it is in use");
        assert!(matches!(error, CheckoutError::Exhausted { .. }), "{error}");
        assert!((limit..limit + SOON).contains(&began.elapsed()), "{:?}", began.elapsed());
    }
    drop(held);

    let held = set.write_with(&WriteOptions::new().within(Duration::MAX)).await.unwrap();
    for options in [
        WriteOptions::new().within(Duration::ZERO),
        WriteOptions::new().within(Duration::from_millis(200)),
        WriteOptions::new().no_wait(),
    ] {
        let began = Instant::now();
        let error = set.write_with(&options).await.expect_err("it is in use");
        assert!(matches!(error, CheckoutError::Exhausted { .. }), "{error}");
        assert!(began.elapsed() < SOON, "{options:?}: {:?}", began.elapsed());
    }
    drop(held);
    let at_once = WriteOptions::new().within(Duration::ZERO);
    until("it is idle", async || set.write_with(&at_once).await.is_ok()).await.unwrap();
}

/// The pauses of twenty repeats take two seconds at least.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_is_repeated_after_the_timeout_of_its_call() {
    let (cluster, set) =
        fixture_with(0, "", |config| config.reads(ReadSettings { retries: 20, ..ReadSettings::default() }))
            .await;
    let conflict = "CREATE FUNCTION conflict() RETURNS void LANGUAGE plpgsql AS \
        $$ BEGIN RAISE EXCEPTION 'a conflict' USING ERRCODE = '40001'; END $$";
    cluster.primary().execute(conflict).await.unwrap();
    let runs = Mutex::new(0);
    let within = Duration::from_secs(1);
    let outcome = set.run_read_with(&ReadOptions::new().within(within), async |conn| {
        *runs.lock().unwrap() += 1;
        value(conn, "SELECT conflict()").await.map_err(Error::from)
    });
    let error = outcome.await.expect_err("it conflicts each time");
    assert!(matches!(error, Error::Query(_)), "its own error: {error}");
    let runs = runs.into_inner().unwrap();
    assert!((2..20).contains(&runs), "{runs} runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_timeout_of_a_write_limits_its_wait_for_a_primary() {
    let (cluster, set) = fixture_with(1, "", |config| config).await;
    drop(set.write_with(&WriteOptions::new().no_wait()).await.expect("a new connection"));
    cluster.primary().kill().await.unwrap();
    until_no_primary(&set).await.unwrap();

    let began = Instant::now();
    let error = set.write_with(&WriteOptions::new().no_wait()).await.expect_err("there is no primary");
    assert!(matches!(error, CheckoutError::NoPrimary { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());

    let limit = Duration::from_millis(300);
    let short = WriteOptions::new().within(limit);
    let began = Instant::now();
    let error = set.write_with(&short).await.expect_err("there is no primary");
    assert!(matches!(error, CheckoutError::NoPrimary { .. }), "{error}");
    assert!((limit..limit + SOON).contains(&began.elapsed()), "{:?}", began.elapsed());
    let error = set
        .run_write_with(&short, async |_| -> Result<(), Error> { unreachable!("there is no connection") })
        .await
        .expect_err("there is no primary");
    assert!(matches!(error, Error::Checkout(CheckoutError::NoPrimary { .. })), "{error}");

    // A call that waits for longer than the primary is away is served.
    let (conn, started) = tokio::join!(
        set.write_with(&WriteOptions::new().within(Duration::from_secs(30))),
        cluster.primary().start()
    );
    started.unwrap();
    assert_eq!(conn.expect("the primary").role(), Role::Primary);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_transaction_is_repeated_after_the_timeout_of_its_call() {
    let (_cluster, set) = fixture_with(0, "", |config| config).await;
    let within = Duration::from_millis(300);
    let mut runs = 0;
    let counted = Mutex::new(&mut runs);
    let outcome = set.run_write_with(&WriteOptions::new().within(within), async |tx| {
        **counted.lock().unwrap() += 1;
        sleep(within).await;
        let raise = "DO $$ BEGIN RAISE EXCEPTION 'as if' USING ERRCODE = '40P01'; END $$";
        diesel::sql_query(raise).execute(tx).await.map_err(Error::from)
    });
    let error = outcome.await.expect_err("it conflicts");
    assert!(matches!(error, Error::Query(_)), "its own error: {error}");
    assert_eq!(runs, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_lag_of_a_call_limits_the_lag_of_its_replica() {
    let max_lag = Duration::from_secs(3600);
    let (cluster, set) =
        fixture_with(1, "", |config| config.reads(ReadSettings { max_lag, ..ReadSettings::default() })).await;
    cluster.primary().execute("CREATE TABLE log (id bigint)").await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    let fresh = ReadOptions::new().max_lag(Duration::from_secs(3));
    until("the replica is fresh", async || {
        set.read_with(&fresh).await.is_ok_and(|conn| conn.role() == Role::Replica)
    })
    .await
    .unwrap();
    cluster.replica(0).pause_replay().await.unwrap();
    cluster.primary().execute("INSERT INTO log VALUES (1)").await.unwrap();
    let never = fresh.clone().fallback(Fallback::Never).within(Duration::from_millis(100));
    until("the replica is too old for it", async || {
        matches!(set.read_with(&never).await, Err(CheckoutError::NoNode { .. }))
    })
    .await
    .unwrap();
    assert_eq!(set.read_with(&fresh).await.unwrap().role(), Role::Primary);
    until("the others are served by it", async || {
        set.read().await.is_ok_and(|conn| conn.role() == Role::Replica)
    })
    .await
    .unwrap();
    // While there is no primary, no fresher data are known.
    cluster.primary().kill().await.unwrap();
    until_no_primary(&set).await.unwrap();
    assert_eq!(set.read_with(&fresh).await.unwrap().role(), Role::Replica);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_zone_of_a_call_is_preferred() {
    let cluster = start_cluster(2).await;
    let [primary, a, b] = cluster.servers() else { unreachable!("three servers") };
    let replica = |url: String, zone| NodeConfig::replica(url).unwrap().with_name(zone).with_zone(zone);
    let config = builder_of([primary]).node(replica(a.url(), "a")).node(replica(b.url(), "b")).zone("a");
    let set = start(config).await;
    until_all_serve(&set).await.unwrap();
    // A zone is a preference: sessions are still being opened at first.
    let served_by = async |options: &ReadOptions, node: &str| {
        for _ in 0..10 {
            if set.read_with(options).await.unwrap().node() != node {
                return false;
            }
        }
        true
    };
    until("the program's zone serves", async || served_by(&ReadOptions::new(), "a").await).await.unwrap();
    until("the call's zone serves", async || served_by(&ReadOptions::new().zone("b"), "b").await)
        .await
        .unwrap();
    let served = join_all((0..20).map(|_| set.read_with(&ReadOptions::new().zone("c")))).await;
    assert!(served.iter().all(Result::is_ok), "a zone without nodes keeps no read waiting");
}
