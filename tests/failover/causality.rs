//! Sessions under random faults: what they saw is recorded, and a checker searches the record for violations.
//!
//! * `history`: the record
//! * `checker`: the guarantees, and the violations of a record (pure)
//! * `client`, `worker`: a session, with its token or without, and its random mix of operations
//! * `faults`, `run`: the random faults, and a run from the start of the cluster to the check
//!
//! `CAUSALITY_SEED` repeats the choices of a run, and `CAUSALITY_SECONDS` sets its length. The seed does not determine
//! the servers and the scheduler, so a failure is likely to return with its seed, but not certain to.

mod checker;
mod client;
mod faults;
mod history;
mod run;
mod worker;

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman::ReplicaSet;
use pointsman::testkit::ignore_causal_tokens;

use self::checker::Rule;
use self::client::Client;
use self::history::Action;
use self::run::{Run, from_environment};
use crate::test_error::TestResult;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_keep_their_guarantees_through_faults_and_two_promotions() -> TestResult {
    let seconds = from_environment("CAUSALITY_SECONDS").unwrap_or(30);
    let failovers = u32::try_from(seconds / 20)?.max(2);
    let (length, session) = (Duration::from_secs(seconds), |set: &ReplicaSet| Client::Session(set.session()));
    let run = Run::of(session, length, async |faults| faults.inject_all(length, failovers).await).await?;
    let broken = run.check();
    if !broken.is_empty() {
        run.print_faults();
    }
    assert_eq!(broken, BTreeMap::new());

    let first_failover = run.first_failover().expect("a failover");
    let is_groundless = |operation: &&history::Operation| {
        matches!(operation.action, Action::LossReported) && operation.ended < first_failover
    };
    assert_eq!(run.history.iter().filter(is_groundless).count(), 0, "a crash loses nothing");
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
    let run = Run::of(client, length, async |faults| faults.lag(length).await).await?;
    let broken: Vec<_> = run.check().into_keys().collect();
    assert_eq!(broken, [Rule::ReadYourWrites, Rule::MonotonicReads], "and nothing was lost");
    Ok(())
}
