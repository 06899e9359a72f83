//! `pointsman replay`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use pointsman::ReplicaSet;
use pointsman::payments::ledger::{Ledger, Replay, Report, Settings};
use pointsman::payments::{Asset, Provider};
use tokio::sync::Notify;

use super::duration;
use super::failure::{Failure, Outcome};
use super::servers::{self, OwnCluster, ReplicaFault};
use super::signals::End;

/// Number of replicas in a temporary cluster.
const REPLICAS: usize = 2;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The ledger: id,account,date,kind,amount,balance_after.
    file: PathBuf,
    /// Prints the report as one JSON object.
    #[arg(long)]
    json: bool,
    /// Number of accounts that are worked on at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256), value_name = "N")]
    concurrency: u16,
    /// The asset of the amounts.
    #[arg(long, default_value = "CZK")]
    asset: Asset,
    /// The provider under whose name the lines are recorded.
    #[arg(long, default_value = "ledger")]
    provider: Provider,
    /// Reads without causal tokens, and counts the stale balances instead of failing.
    #[arg(long)]
    without_tokens: bool,
    /// Delays the replicas of the replay's own cluster by this time, such as 200ms.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    replay_delay: Option<Duration>,
    /// A fault of a replica of the replay's own cluster, after half of the lines.
    #[arg(long, value_enum, value_name = "FAULT")]
    fault: Option<ReplicaFault>,
}

pub(super) async fn run(config: Option<&Path>, arguments: Arguments) -> Outcome {
    let of_own =
        [("--replay-delay", arguments.replay_delay.is_some()), ("--fault", arguments.fault.is_some())];
    if let Some((option, _)) = of_own.into_iter().find(|(_, given)| *given)
        && servers::are_configured(config)
    {
        return Err(Failure::Usage(anyhow::anyhow!(
            "{option} needs a cluster that the replay starts itself, but servers are configured: leave out \
             {option}, or --config, DATABASE_URL, POINTSMAN_CONFIG and pointsman.toml"
        )));
    }
    let mut end = End::listen()?;
    let path = arguments.file.display().to_string();
    let file = File::open(&arguments.file).with_context(|| format!("cannot read {path}"))?;
    let ledger = Ledger::read(file).with_context(|| path.clone())?;
    // Everything that is started here is dropped, and so removed, whichever branch ends first.
    let replay = async {
        let (set, cluster) = if servers::are_configured(config) {
            (servers::connect(config).await?, None)
        } else {
            eprintln!(
                "no servers are configured: starting a primary and {REPLICAS} replicas for this replay"
            );
            let (set, cluster) = servers::start_own(REPLICAS).await?;
            servers::migrate(&set).await?;
            // Without a token, a read could meet a replica that has no tables yet.
            servers::delay_replay(&cluster, arguments.replay_delay.unwrap_or_default()).await?;
            (set, Some(cluster))
        };
        let report = replay(&set, &ledger, cluster.as_ref(), &arguments).await;
        servers::close(&set).await;
        report
    };
    let report = tokio::select! {
        report = replay => report?,
        signal = end.asked() => {
            let rest = if servers::are_configured(config) {
                "what was recorded stays, and another run goes on behind it"
            } else {
                "the cluster of this replay is removed"
            };
            return Err(Failure::failed(anyhow::anyhow!("ended by {signal}: {rest}")));
        }
    };
    if arguments.json {
        println!("{}", serde_json::to_string(&report).context("the report cannot be written")?);
    } else {
        print!("{}", words(&report));
    }
    match &report.first_difference {
        Some(difference) => Err(Failure::failed(anyhow::anyhow!("{path}, {difference}"))),
        None => Ok(()),
    }
}

async fn replay(
    set: &ReplicaSet,
    ledger: &Ledger,
    own: Option<&OwnCluster>,
    arguments: &Arguments,
) -> Outcome<Report> {
    let settings = Settings {
        provider: arguments.provider.clone(),
        asset: arguments.asset.clone(),
        concurrency: usize::from(arguments.concurrency),
        with_tokens: !arguments.without_tokens,
    };
    let bar =
        ProgressBar::with_draw_target(Some(ledger.entries().len() as u64), ProgressDrawTarget::stderr());
    let style = "recording [{bar:40}] {human_pos}/{human_len} lines, {rate} per second, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(style) {
        // Decimals of a rate only flicker.
        let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = write!(out, "{:.0}", state.per_sec());
        };
        bar.set_style(style.with_key("rate", rate).progress_chars("=> "));
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    let (half, lines, is_half) = (ledger.entries().len() / 2, AtomicUsize::new(0), Notify::new());
    let recorded = || {
        bar.inc(1);
        if lines.fetch_add(1, Ordering::Relaxed) == half {
            is_half.notify_one();
        }
    };
    let failed_fault = async {
        is_half.notified().await;
        if let (Some(cluster), Some(fault)) = (own, arguments.fault) {
            let applied = fault.apply(cluster).await;
            tracing::info!(?fault, "half of the lines are recorded");
            if let Err(failure) = applied {
                return failure;
            }
        }
        std::future::pending().await
    };
    let replay = Replay::new(set, ledger, settings, &recorded);
    let report = tokio::select! {
        report = replay.run() => report,
        failure = failed_fault => return Err(failure),
    };
    bar.finish_and_clear();
    Ok(report.with_context(|| arguments.file.display().to_string())?)
}

fn words(report: &Report) -> String {
    let Report { lines, accounts, recorded, already_there, seconds, lines_per_second, .. } = report;
    let mut text = format!("{lines} lines of {accounts} accounts\n");
    text += &format!("recorded    {recorded} in {seconds:.1} s, {lines_per_second:.0} lines per second\n");
    if *already_there > 0 {
        text += &format!("there       {already_there} already, with the same content\n");
    }
    let reads: Vec<String> = report.reads.iter().map(|(node, reads)| format!("{node} {reads}")).collect();
    text += &format!("reads       {}\n", reads.join(", "));
    if *recorded > 0 {
        text += &after_writes(report);
    }
    if report.compared_at_end > 0 {
        let from = if report.compared_on_replicas {
            "the replicas"
        } else {
            "the primary: no replica is configured"
        };
        text += &format!("compared    {} last balances, from {from}\n", report.compared_at_end);
    }
    text += &match report.differences {
        0 => "no difference\n".to_owned(),
        _ => "stopped at the first difference\n".to_owned(),
    };
    text
}

/// Returns the lines about the reads after each write.
fn after_writes(report: &Report) -> String {
    let Report { replica_reads, primary_reads, stale_reads, waited_reads, .. } = report;
    let reads = replica_reads + primary_reads;
    let mut text =
        format!("after write {replica_reads} balances from replicas, {primary_reads} from the primary\n");
    if !report.with_tokens {
        return text + &format!("stale       {stale_reads} of {reads}, without tokens\n");
    }
    text += &format!(
        "waited      {waited_reads} of {reads} longer than 5 ms; median {} ms, 99th percentile {} ms, longest {} ms\n",
        report.wait_p50_ms, report.wait_p99_ms, report.wait_max_ms
    );
    text + &format!("stale       {stale_reads} of {reads}\n")
}
