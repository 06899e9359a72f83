//! A soak: random faults, up to two at a time, on one primary and three replicas, and no write fails.
//!
//! * `faults`: two lanes of faults, and the record of them
//! * `node`: the faults of one node
//! * `promotion`: failovers and switchovers
//!
//! `SOAK_SEED` repeats the choices of a run, and `SOAK_SECONDS` sets its length; `scripts/soak` sets both.

mod faults;
mod node;
mod promotion;

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use pointsman::ReplicaSet;
use pointsman::config::{ConfigBuilder, NodeConfig, WriteSettings};
use pointsman::testkit::Cluster;

use self::faults::Faults;
use crate::fixture::connect;
use crate::recorded::checker::Promises;
use crate::recorded::client::{CREATE_ENTRIES, Client};
use crate::recorded::history::History;
use crate::recorded::run::{ENTRIES, Run, from_environment, print_faults, rows, seed, unexpected};
use crate::recorded::worker::Mix;
use crate::recorded::workload::Workload;
use crate::test_error::TestResult;

/// Time that a write waits for a primary: no fault lasts longer.
const FAILOVER_WAIT: Duration = Duration::from_secs(20);

const PROMISES: Promises = Promises {
    // `timeouts.checkout`, and the time until a node that hangs is marked down.
    read_limit: Duration::from_secs(7),
    write_limit: Duration::from_secs(22),
    recovery_limit: Duration::from_secs(10),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_happen_exactly_once_whatever_fails() -> TestResult {
    let length = Duration::from_secs(from_environment("SOAK_SECONDS").unwrap_or(25));
    let mut rng = Rng::with_seed(seed("SOAK_SEED"));
    let cluster = Cluster::builder().replicas(3).proxied().start().await?;
    cluster.primary().execute(CREATE_ENTRIES).await?;
    cluster.primary().execute(promotion::CREATE_MARKS).await?;
    cluster.wait_caught_up().await?;
    let sets = vec![connect(config(&cluster).await?).await?, connect(config(&cluster).await?).await?];
    let session = |set: &ReplicaSet| Client::Session(set.session());
    let workload = Workload::start(sets, Mix::ExactlyOnce, session, length, &mut rng);
    let faults = Faults::new(&cluster, workload.start);
    let injected = faults.inject(length, &mut rng).await;
    let record = faults.into_record();
    let (keys, work) = (workload.keys, workload.stop().await);
    if injected.is_err() || work.is_err() {
        cluster.servers().iter().for_each(|server| println!("{}:\n{}", server.name(), server.log()));
        print_faults(&record.log);
    }
    injected?;
    let work = work?;
    let end = rows(&cluster.current_primary().await?.query_value(ENTRIES).await?);
    let nodes = cluster.servers().iter().map(|server| server.name().to_owned()).collect();
    let history = History { end, nodes, outages: record.outages, ..History::default() };
    let run = Run::new(work, keys, history, record.log);
    let broken = run.check(Some(&PROMISES));
    run.print_kinds();
    for (kind, at) in &record.promotions {
        println!(
            "    {kind}: first write {:?} after the new primary took writes",
            run.first_write_after(*at)
        );
    }
    assert!(!record.promotions.is_empty(), "there was a promotion");
    assert_eq!(unexpected(broken), BTreeMap::new());
    Ok(())
}

/// A configuration in which the set reaches each node through its proxy.
async fn config(cluster: &Cluster) -> TestResult<ConfigBuilder> {
    let mut config = pointsman::Config::builder();
    for (i, server) in cluster.servers().iter().enumerate() {
        let url = server.proxied_url().await?;
        let node = if i == 0 { NodeConfig::primary(url) } else { NodeConfig::replica(url) };
        config = config.node(node?.with_name(server.name()));
    }
    Ok(config.writes(WriteSettings { failover_wait: FAILOVER_WAIT, ..WriteSettings::default() }))
}
