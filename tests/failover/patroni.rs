//! A set on a Patroni cluster: its switchovers, failovers, restarts and reinitialisations, a lost etcd and pause.
//!
//! * `cluster`, `settings`: etcd and three members on loopback
//! * `faults`: what Patroni is asked for, and what its members go through
//! * `promotion`: the instants of a promotion
//!
//! It needs Debian's packages `patroni` and `etcd-server`, which `scripts/test` installs. `SOAK_SEED` repeats the
//! choices of a run, and `PATRONI_SECONDS` sets its length; `scripts/soak --patroni` sets both.

mod cluster;
mod faults;
mod promotion;
mod settings;

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use pointsman::ReplicaSet;

use self::cluster::{PatroniCluster, connect};
use self::faults::Faults;
use crate::recorded::checker::Promises;
use crate::recorded::client::Client;
use crate::recorded::history::History;
use crate::recorded::run::{ENTRIES, Run, from_environment, print_faults, rows, seed, unexpected};
use crate::recorded::worker::Mix;
use crate::recorded::workload::Workload;
use crate::test_error::TestResult;

const PROMISES: Promises = Promises {
    // `timeouts.checkout`, and the time until a node that hangs is marked down.
    read_limit: Duration::from_secs(7),
    // `writes.failover_wait`, and a statement.
    write_limit: Duration::from_secs(47),
    recovery_limit: Duration::from_secs(10),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_happen_exactly_once_on_a_patroni_cluster() -> TestResult {
    let length = Duration::from_secs(from_environment("PATRONI_SECONDS").unwrap_or(10));
    let mut rng = Rng::with_seed(seed("SOAK_SEED"));
    let cluster = PatroniCluster::start().await?;
    let sets = vec![connect(&cluster).await?, connect(&cluster).await?];
    let session = |set: &ReplicaSet| Client::Session(set.session());
    let workload = Workload::start(sets, Mix::ExactlyOnce, session, length, &mut rng);
    let mut faults = Faults::new(&cluster, workload.start);
    let injected = faults.inject(length, &mut rng).await;
    let (keys, work) = (workload.keys, workload.stop().await);
    if injected.is_err() || work.is_err() {
        cluster.print_logs();
        print_faults(&faults.log);
    }
    injected?;
    let work = work?;
    let answer = cluster.session(cluster.until_leader().await?, "app").await?.query_one(ENTRIES, &[]).await?;
    let nodes = cluster.members.iter().map(|member| member.name.clone()).collect();
    let history = History { end: rows(answer.get(0)), nodes, outages: faults.outages, ..History::default() };
    let run = Run::new(work, keys, history, faults.log);
    let broken = run.check(Some(&PROMISES));
    run.print_kinds();
    for promotion in &faults.promotions {
        println!("    {promotion}, first write {:?} after that", run.first_write_after(promotion.promoted));
    }
    assert!(!faults.promotions.is_empty(), "there was a promotion");
    assert_eq!(unexpected(broken), BTreeMap::new());
    Ok(())
}
