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

/// Replays a ledger without and with tokens while the replicas are behind.
///
/// Returns the stale reads of each.
pub(super) async fn compare(fixture: &Fixture) -> Outcome<String> {
    servers::delay_replay(fixture.cluster(), DELAY).await?;
    let without = replay(fixture, "without tokens", false).await?;
    let with = replay(fixture, "with tokens", true).await?;
    servers::delay_replay(fixture.cluster(), Duration::ZERO).await?;
    fixture.until_well().await?;
    let keeping_up = replay(fixture, "with tokens, without the delay", true).await?;
    Ok(format!(
        "\nThe replicas are {} ms behind. Of {LINES} balances, each read right after a write:\n\n{without}{with}{keeping_up}",
        DELAY.as_millis()
    ))
}

/// Replays the ledger, and returns a line about its reads.
async fn replay(fixture: &Fixture, name: &str, with_tokens: bool) -> Outcome<String> {
    let key = name.replace([' ', ','], "-");
    let ledger = Ledger::read(ledger(&key).as_bytes()).context("the ledger of the demonstration")?;
    let settings = Settings {
        provider: Provider::new(&key).context("the provider of the demonstration")?,
        with_tokens,
        ..Settings::default()
    };
    let report = Replay::new(fixture.set(), &ledger, settings, &|| {}).run().await;
    let report = report.context("the comparison of reads failed")?;
    if let Some(difference) = &report.first_difference {
        return Err(anyhow::anyhow!("a balance is wrong: {difference}").into());
    }
    let Report { stale_reads, replica_reads, primary_reads, .. } = report;
    Ok(format!(
        "  {name:<31} {stale_reads:>3} stale   ({replica_reads} from replicas, {primary_reads} from the primary)\n"
    ))
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
