//! Replaying ledgers into real clusters.

use std::time::Duration;

use pointsman::health::Status;
use pointsman::payments::ledger::{DifferenceAt, Ledger, Replay, ReplayError, Report, Settings};
use pointsman::payments::{MIGRATIONS, Provider};
use pointsman::testkit::wait::until;
use pointsman::testkit::{Cluster, ignore_causal_tokens};
use pointsman::{ReplicaSet, migrate};

use crate::support::fixture;

/// Twelve accounts with ten lines each, of which every third takes something out.
pub(crate) fn ledger() -> String {
    let mut text = String::from("id,account,date,kind,amount,balance_after\n");
    let mut balances = [0i64; 12];
    for line in 0..120usize {
        let (account, step) = (line % 12, line as i64 + 100);
        let (kind, change) = if line % 3 == 2 { ("withdrawal", -step) } else { ("deposit", step) };
        balances[account] += change;
        let balance = balances[account];
        text += &format!("{line},acc-{account},1993-01-{:02},{kind},{step}.50,", line / 12 + 1);
        // Half a unit more each time, up or down.
        let halves = 2 * balance + if line % 3 == 2 { -1 } else { 1 } * (line as i64 / 12 + 1);
        text += &format!(
            "{}{}.{}\n",
            if halves < 0 { "-" } else { "" },
            halves.abs() / 2,
            if halves % 2 == 0 { 0 } else { 5 }
        );
    }
    text
}

async fn migrated_fixture(replicas: usize) -> (Cluster, ReplicaSet) {
    let (cluster, set) = fixture(replicas).await;
    migrate::run(set.write().await.unwrap(), MIGRATIONS).await.unwrap();
    (cluster, set)
}

async fn replay(set: &ReplicaSet, text: &str) -> Result<Report, ReplayError> {
    replay_with(set, text, Settings::default()).await
}

async fn replay_with(set: &ReplicaSet, text: &str, settings: Settings) -> Result<Report, ReplayError> {
    let ledger = Ledger::read(text.as_bytes()).unwrap();
    Replay::new(set, &ledger, settings, &|| {}).run().await
}

/// The same ledger for other accounts, under another provider, so that a set can replay it as well.
async fn replay_without_tokens(set: &ReplicaSet) -> Report {
    let provider = Provider::new("without-tokens").unwrap();
    let settings = Settings { provider, with_tokens: false, ..Settings::default() };
    replay_with(set, &ledger().replace(",acc-", ",other-"), settings).await.unwrap()
}

/// Every line was read back, and no answer was stale.
fn assert_nothing_stale(report: &Report) {
    assert_eq!((report.recorded, report.replica_reads + report.primary_reads), (120, 120), "{report:?}");
    assert_eq!((report.stale_reads, &report.first_difference), (0, &None), "{report:?}");
}

#[tokio::test]
async fn a_ledger_is_recorded_on_the_primary_and_compared_on_the_replicas() {
    let (cluster, set) = migrated_fixture(2).await;
    let report = replay(&set, &ledger()).await.unwrap();
    assert_eq!(report.first_difference, None);
    assert_eq!((report.lines, report.accounts, report.recorded, report.already_there), (120, 12, 120, 0));
    assert!(report.compared_on_replicas);
    // After each line, and once more for each account at the end.
    assert_eq!((report.replica_reads + report.primary_reads, report.stale_reads), (120, 0));
    assert!(report.replica_reads >= 60, "the replicas serve most of the reads: {report:?}");
    assert_eq!(report.reads.values().sum::<u64>(), 120 + 12);
    let primary = &set.health().nodes[0].status.name;
    assert_eq!(report.reads.get(primary).copied().unwrap_or_default(), report.primary_reads);

    // A second run finds everything there, and goes on with what was added.
    let longer = ledger() + "120,acc-new,1993-02-01,deposit,5,5\n";
    let again = replay(&set, &longer).await.unwrap();
    assert_eq!((again.recorded, again.already_there, again.differences), (1, 120, 0));
    assert_eq!(cluster.primary().query_value("SELECT count(*) FROM transactions").await.unwrap(), "121");
}

#[tokio::test]
async fn the_first_difference_in_the_file_is_reported() {
    let (_cluster, set) = migrated_fixture(0).await;
    let mut lines: Vec<String> = ledger().lines().map(str::to_owned).collect();
    for wrong in [40, 41, 90] {
        let (rest, _) = lines[wrong].rsplit_once(',').unwrap();
        lines[wrong] = format!("{rest},123456.78");
    }
    let report = replay(&set, &lines.join("\n")).await.unwrap();
    let difference = report.first_difference.unwrap();
    assert_eq!((difference.line, difference.at, report.differences), (41, DifferenceAt::Recording, 1));
    assert!(difference.to_string().starts_with("line 41: account acc-3 has "), "{difference}");
}

#[tokio::test]
async fn another_transaction_on_an_account_is_a_difference_at_the_end() {
    let (cluster, set) = migrated_fixture(1).await;
    replay(&set, &ledger()).await.unwrap();
    let other = "INSERT INTO transactions (id, account, amount, asset, kind, status, provider, provider_id, occurred_at) \
                 VALUES (gen_random_uuid(), 'acc-3', 1, 'CZK', 'deposit', 'completed', 'other', '1', now())";
    cluster.primary().execute(other).await.unwrap();
    let report = replay(&set, &ledger()).await.unwrap();
    let difference = report.first_difference.unwrap();
    assert_eq!((difference.account.as_str(), difference.at), ("acc-3", DifferenceAt::End));
    assert!(report.compared_at_end == 12 && report.compared_on_replicas);
}

#[tokio::test]
async fn a_recorded_line_with_other_content_is_an_error_of_that_line() {
    let (_cluster, set) = migrated_fixture(0).await;
    replay(&set, &ledger()).await.unwrap();
    let changed = ledger().replacen(",100.50,", ",100.51,", 1);
    let error = replay(&set, &changed).await.unwrap_err();
    assert!(matches!(error, ReplayError::Line { line: 2, .. }), "{error}");
}

#[tokio::test]
async fn a_replica_is_waited_for_until_it_has_replayed_everything() {
    let (cluster, set) = migrated_fixture(1).await;
    let replica = cluster.replica(0);
    cluster.wait_caught_up().await.unwrap();
    replica.pause_replay().await.unwrap();
    let ledger = ledger();
    let run = tokio::spawn({
        let set = set.clone();
        async move { replay(&set, &ledger).await.unwrap() }
    });
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while cluster.primary().query_value("SELECT count(*) FROM transactions").await.unwrap() != "120" {
        assert!(tokio::time::Instant::now() < deadline, "the lines were not recorded");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(!run.is_finished(), "the replica has nothing of it yet");
    replica.resume_replay().await.unwrap();
    let report = run.await.unwrap();
    assert!(report.compared_on_replicas);
    assert_eq!(report.differences, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_balance_is_stale_on_delayed_replicas_and_without_tokens_some_are() {
    let (cluster, set) = migrated_fixture(2).await;
    cluster.wait_caught_up().await.unwrap();
    for replica in cluster.replicas() {
        replica.set_replay_delay(Duration::from_millis(200)).await.unwrap();
    }
    let report = replay(&set, &ledger()).await.unwrap();
    assert_nothing_stale(&report);
    assert!(report.waited_reads > 0, "the replicas were behind: {report:?}");
    assert!(report.wait_p50_ms <= report.wait_p99_ms && report.wait_p99_ms <= report.wait_max_ms);

    let report = replay_without_tokens(&set).await;
    assert!(report.stale_reads > 0 && report.differences == 0, "{report:?}");
    assert_eq!((report.waited_reads, report.wait_max_ms), (0, 0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_balance_is_stale_while_one_replica_stands_still_and_without_tokens_some_are() {
    let (cluster, set) = migrated_fixture(2).await;
    cluster.wait_caught_up().await.unwrap();
    cluster.replica(0).pause_replay().await.unwrap();
    let report = replay(&set, &ledger()).await.unwrap();
    assert_nothing_stale(&report);
    assert!(report.replica_reads > 0, "the other replica serves: {report:?}");

    let report = replay_without_tokens(&set).await;
    assert!(report.stale_reads > 0 && report.differences == 0, "{report:?}");

    // A stale balance is one that the primary has right: a wrong ledger stays a difference.
    let wrong = "wrong,acc-0,1993-02-01,deposit,5,1\n";
    let report = replay(&set, &(ledger() + wrong)).await.unwrap();
    let difference = report.first_difference.unwrap();
    assert_eq!((difference.line, difference.at), (122, DifferenceAt::Recording));
    cluster.replica(0).resume_replay().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_balance_is_stale_when_a_replica_is_killed_meanwhile() {
    let (cluster, set) = migrated_fixture(2).await;
    cluster.wait_caught_up().await.unwrap();
    cluster.replica(1).set_replay_delay(Duration::from_millis(200)).await.unwrap();
    let run = tokio::spawn({
        let set = set.clone();
        async move { replay(&set, &ledger()).await.unwrap() }
    });
    let lines = async || cluster.primary().query_value("SELECT count(*) FROM transactions").await;
    until("some lines are recorded", async || lines().await.unwrap().parse::<u32>().unwrap() >= 20)
        .await
        .unwrap();
    cluster.replica(0).kill().await.unwrap();
    assert_nothing_stale(&run.await.unwrap());

    cluster.replica(0).start().await.unwrap();
    until("both replicas serve", async || set.health().status == Status::Healthy).await.unwrap();
    let report = replay_without_tokens(&set).await;
    assert!(report.stale_reads > 0, "{report:?}");
}

/// The tests for stale balances are worth nothing if this one fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_balance_in_spite_of_tokens_is_a_difference() {
    let (cluster, set) = migrated_fixture(1).await;
    cluster.wait_caught_up().await.unwrap();
    cluster.replica(0).pause_replay().await.unwrap();
    ignore_causal_tokens(&set);
    let report = replay(&set, &ledger()).await.unwrap();
    let difference = report.first_difference.as_ref().unwrap();
    assert_eq!((difference.at, report.differences), (DifferenceAt::StaleRead, 1));
    assert!(report.stale_reads > 0 && difference.to_string().contains("the primary has it"), "{report:?}");
    cluster.replica(0).resume_replay().await.unwrap();
}
