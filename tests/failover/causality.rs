//! Sessions under random faults keep their guarantees, also where a promotion loses writes.
//!
//! `CAUSALITY_SEED` repeats the choices of a run, and `CAUSALITY_SECONDS` sets its length.

mod faults;

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use pointsman::ReplicaSet;
use pointsman::testkit::{Cluster, ignore_causal_tokens};

use self::faults::Faults;
use crate::fixture::{config_of, connect};
use crate::recorded::checker::Rule;
use crate::recorded::client::{CREATE_ENTRIES, Client};
use crate::recorded::history::{Action, History, Operation};
use crate::recorded::run::{ENTRIES, Run, from_environment, print_faults, rows, seed};
use crate::recorded::worker::Mix;
use crate::recorded::workload::Workload;
use crate::test_error::TestResult;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_keep_their_guarantees_through_faults_and_two_promotions() -> TestResult {
    let seconds = from_environment("CAUSALITY_SECONDS").unwrap_or(30);
    let failovers = u32::try_from(seconds / 20)?.max(2);
    let (length, session) = (Duration::from_secs(seconds), |set: &ReplicaSet| Client::Session(set.session()));
    let run = run(session, length, async |faults| faults.inject_all(length, failovers).await).await?;
    assert_eq!(run.check(None), BTreeMap::new());

    let first_failover = run.first_failover().expect("a failover");
    let is_groundless = |operation: &&Operation| {
        matches!(operation.action, Action::LossReported) && operation.ended < first_failover
    };
    let groundless = run.history.operations.iter().filter(is_groundless).count();
    assert_eq!(groundless, 0, "a crash loses nothing");
    Ok(())
}

/// The check finds what sessions lack without their tokens, so it can fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_tokens_reads_go_back_while_a_replica_lags() -> TestResult {
    goes_back(|set| Client::Plain(set.clone())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_sets_that_ignore_tokens_reads_go_back_while_a_replica_lags() -> TestResult {
    goes_back(|set| {
        ignore_causal_tokens(set);
        Client::Session(set.session())
    })
    .await
}

async fn goes_back(client: impl Fn(&ReplicaSet) -> Client) -> TestResult {
    let length = Duration::from_secs(5);
    let run = run(client, length, async |faults| faults.lag(length).await).await?;
    let broken: Vec<_> = run.check(None).into_keys().collect();
    assert_eq!(broken, [Rule::ReadYourWrites, Rule::MonotonicReads], "and nothing was lost");
    Ok(())
}

/// Lets sessions work while faults are injected, and reads the state at the end.
async fn run(
    client: impl Fn(&ReplicaSet) -> Client,
    length: Duration,
    inject: impl AsyncFnOnce(&mut Faults<'_>) -> TestResult,
) -> TestResult<Run> {
    let mut rng = Rng::with_seed(seed("CAUSALITY_SEED"));
    let cluster = Cluster::builder().replicas(2).start().await?;
    cluster.primary().execute(CREATE_ENTRIES).await?;
    cluster.wait_caught_up().await?;
    let sets =
        vec![connect(config_of(cluster.servers())).await?, connect(config_of(cluster.servers())).await?];
    let workload = Workload::start(sets, Mix::Sessions, client, length, &mut rng);
    let mut faults = Faults::new(&cluster, rng.fork(), workload.start);
    let injected = inject(&mut faults).await;
    if injected.is_err() {
        cluster.servers().iter().for_each(|server| println!("{}:\n{}", server.name(), server.log()));
        print_faults(&faults.log);
    }
    injected?;
    let (log, lossy_promotions) = (faults.log, faults.promotions);
    let keys = workload.keys;
    let work = workload.stop().await?;
    let end = rows(&cluster.current_primary().await?.query_value(ENTRIES).await?);
    Ok(Run::new(work, keys, History { end, lossy_promotions, ..History::default() }, log))
}
