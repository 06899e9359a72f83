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

/// The same sessions without their tokens: the checker finds what they lack.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_tokens_reads_go_back_while_a_replica_lags() -> TestResult {
    let length = Duration::from_secs(5);
    let plain = |set: &ReplicaSet| Client::Plain(set.clone());
    let run = Run::of(plain, length, async |faults| faults.lag(length).await).await?;
    let broken: Vec<_> = run.check().into_keys().collect();
    assert_eq!(broken, [Rule::ReadYourWrites, Rule::MonotonicReads], "and nothing was lost");
    Ok(())
}
