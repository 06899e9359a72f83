//! Replaying ledgers into real clusters.

use pointsman::payments::MIGRATIONS;
use pointsman::payments::ledger::{DifferenceAt, Ledger, Replay, ReplayError, Report, Settings};
use pointsman::testkit::Cluster;
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
    let ledger = Ledger::read(text.as_bytes()).unwrap();
    Replay::new(set, &ledger, Settings::default(), &|| {}).run().await
}

#[tokio::test]
async fn a_ledger_is_recorded_on_the_primary_and_compared_on_the_replicas() {
    let (cluster, set) = migrated_fixture(2).await;
    let report = replay(&set, &ledger()).await.unwrap();
    assert_eq!(report.first_difference, None);
    assert_eq!((report.lines, report.accounts, report.recorded, report.already_there), (120, 12, 120, 0));
    assert!(report.compared_on_replicas);
    let primary = set.health().nodes[0].status.name.clone();
    assert_eq!(report.reads[&primary], 120);
    assert_eq!(
        report.reads.iter().filter(|(node, _)| **node != primary).map(|(_, reads)| reads).sum::<u64>(),
        12
    );

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
