//! Stale reads with and without causal tokens, side by side.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context;
use pointsman::payments::Provider;
use pointsman::payments::ledger::{Ledger, Replay, Report, Settings};

use super::fixture::Fixture;
use crate::failure::Outcome;
use crate::servers;

/// Delay of the replicas.
const DELAY: Duration = Duration::from_millis(200);
const ACCOUNTS: u32 = 8;
const LINES: u32 = 96;

/// Replays a ledger twice while the replicas are behind, and returns what came of it.
pub(super) async fn compare(fixture: &Fixture) -> Outcome<String> {
    servers::delay_replay(fixture.cluster(), DELAY).await?;
    let without = replay(fixture, false).await?;
    let with = replay(fixture, true).await?;
    servers::delay_replay(fixture.cluster(), Duration::ZERO).await?;
    fixture.until_well().await?;
    let mut text = format!(
        "\nThe replicas are {} ms behind. Of {LINES} balances, each read right after a write:\n\n",
        DELAY.as_millis()
    );
    for (name, report) in [("without tokens", without), ("with tokens", with)] {
        let _ = writeln!(
            text,
            "  {name:<16} {:>3} stale   ({} from replicas, {} from the primary)",
            report.stale_reads, report.replica_reads, report.primary_reads
        );
    }
    Ok(text)
}

async fn replay(fixture: &Fixture, with_tokens: bool) -> Outcome<Report> {
    let name = if with_tokens { "with-tokens" } else { "without-tokens" };
    let ledger = Ledger::read(ledger(name).as_bytes()).context("the ledger of the demonstration")?;
    let settings = Settings {
        provider: Provider::new(name).context("the provider of the demonstration")?,
        with_tokens,
        ..Settings::default()
    };
    let report = Replay::new(fixture.replicas(), &ledger, settings, &|| {}).run().await;
    let report = report.context("the comparison of reads failed")?;
    match &report.first_difference {
        Some(difference) => Err(anyhow::anyhow!("a balance is wrong: {difference}").into()),
        None => Ok(report),
    }
}

/// Deposits of one unit, to accounts that no other traffic uses.
fn ledger(name: &str) -> String {
    let mut text = String::from("id,account,date,kind,amount,balance_after\n");
    for line in 0..LINES {
        let (account, balance) = (line % ACCOUNTS, line / ACCOUNTS + 1);
        let _ = writeln!(text, "{line},{name}-{account},2024-01-01,deposit,1,{balance}");
    }
    text
}
