//! The walk through the faults: break, look, restore, look.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use pointsman::testkit::{Record, Server};
use pointsman::topology::PrimaryStatus;
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::super::failure::Outcome;
use super::stage::Stage;
use super::traffic::Traffic;

const READS_PER_SECOND: u32 = 500;
const WRITES_PER_SECOND: u32 = 100;

/// So many requests make a second.
const SECOND: u64 = (READS_PER_SECOND + WRITES_PER_SECOND) as u64;

/// A fault that the walk goes through.
#[derive(Debug, Clone, Copy)]
enum Fault {
    ReplicaKilled,
    ReplicaHangs,
    AllReplicasGone,
    ReplicaDisconnected,
    PrimaryKilled,
    PrimaryHangs,
    Switchover,
    SplitBrain,
    EverythingDown,
}

const WALK: [Fault; 9] = [
    Fault::ReplicaKilled,
    Fault::ReplicaHangs,
    Fault::AllReplicasGone,
    Fault::ReplicaDisconnected,
    Fault::PrimaryKilled,
    Fault::PrimaryHangs,
    Fault::Switchover,
    Fault::SplitBrain,
    Fault::EverythingDown,
];

impl Fault {
    const fn name(self) -> &'static str {
        match self {
            Self::ReplicaKilled => "a replica is killed",
            Self::ReplicaHangs => "a replica hangs",
            Self::AllReplicasGone => "all replicas are killed, and come back",
            Self::ReplicaDisconnected => "a replica loses its primary",
            Self::PrimaryKilled => "the primary is killed, a replica promoted",
            Self::PrimaryHangs => "the primary hangs, a replica is promoted, the old one wakes up",
            Self::Switchover => "a planned switchover",
            Self::SplitBrain => "both replicas are promoted",
            Self::EverythingDown => "everything is down for 5 seconds",
        }
    }
}

/// What the users noticed of one fault.
#[derive(Debug, Serialize)]
struct Noticed {
    name: &'static str,
    reads: usize,
    failed_reads: usize,
    longest_read_gap_ms: f64,
    slowest_read_ms: f64,
    writes: usize,
    failed_writes: usize,
    lost_acknowledged_writes: usize,
    /// Null where nothing was promoted.
    first_write_after_promotion_ms: Option<f64>,
}

/// Goes through all faults, and tells of each what its users noticed.
pub(super) async fn walk(stage: &Stage, json: Option<&Path>) -> Outcome {
    if let Some(path) = json {
        // Now, not after some minutes: what cannot be written should be known before.
        std::fs::write(path, "[]\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{READS_PER_SECOND} reads and {WRITES_PER_SECOND} writes a second go to {}.\n", stage.url());
    println!("{}", heading());
    let mut all = Vec::new();
    for fault in WALK {
        let noticed = go_through(stage, fault).await?;
        println!("{}", row(&noticed));
        all.push(noticed);
        if let Some(path) = json {
            let text = serde_json::to_string_pretty(&all).context("the report cannot be written")?;
            std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    println!("\n{}", summary(&all));
    Ok(())
}

async fn go_through(stage: &Stage, fault: Fault) -> Outcome<Noticed> {
    let traffic = Traffic::start(stage, READS_PER_SECOND, WRITES_PER_SECOND);
    traffic.answered(SECOND).await;
    let promoted = strike(stage, &traffic, fault).await.with_context(|| fault.name().to_owned())?;
    stage.until_well().await?;
    traffic.answered(SECOND).await;
    let (record, run) = traffic.stop().await;
    tracing::debug!(fault = fault.name(), %record, "noticed");
    let lost = lost(stage, &record, &run).await?;
    let ms = |time: Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
    Ok(Noticed {
        name: fault.name(),
        reads: record.reads.len(),
        failed_reads: record.failed_reads().count(),
        longest_read_gap_ms: ms(record.longest_read_gap()),
        slowest_read_ms: ms(record.slowest_read()),
        writes: record.writes.len(),
        failed_writes: record.failed_writes().count(),
        lost_acknowledged_writes: lost,
        first_write_after_promotion_ms: promoted.and_then(|at| record.first_write_after(at)).map(ms),
    })
}

/// Breaks something, looks on for a while, and restores it; gives the instant at which a promoted server took writes.
async fn strike(stage: &Stage, traffic: &Traffic, fault: Fault) -> anyhow::Result<Option<Instant>> {
    let (primary, replicas) = stage.roles().await?;
    let [one, other] = replicas[..] else { return Err(anyhow!("there are two replicas")) };
    match fault {
        Fault::ReplicaKilled => {
            one.kill().await?;
            traffic.answered(2 * SECOND).await;
            one.start().await?;
        }
        Fault::ReplicaHangs => {
            one.pause().await?;
            traffic.answered(2 * SECOND).await;
            one.resume().await?;
        }
        Fault::AllReplicasGone => {
            one.kill().await?;
            other.kill().await?;
            traffic.answered(2 * SECOND).await;
            one.start().await?;
            other.start().await?;
        }
        Fault::ReplicaDisconnected => {
            one.disconnect_from_primary().await?;
            // By default a replica may be ten seconds behind before it is left out.
            until(stage, |topology| topology.node(one.name()).is_some_and(|node| !node.serves_reads)).await?;
            traffic.answered(SECOND).await;
            one.reconnect_to_primary().await?;
        }
        Fault::PrimaryKilled => {
            acknowledge_after_replication(primary, true).await?;
            traffic.answered(SECOND / 2).await;
            primary.kill().await?;
            traffic.answered(SECOND / 2).await;
            let (heir, follower) = most_advanced(one, other).await?;
            let promoted = promote(heir).await?;
            follower.follow(heir).await?;
            traffic.answered(SECOND).await;
            primary.rejoin(heir).await?;
            acknowledge_after_replication(heir, false).await?;
            return Ok(Some(promoted));
        }
        Fault::PrimaryHangs => {
            acknowledge_after_replication(primary, true).await?;
            traffic.answered(SECOND / 2).await;
            primary.pause().await?;
            let (heir, follower) = most_advanced(one, other).await?;
            let promoted = promote(heir).await?;
            follower.follow(heir).await?;
            traffic.answered(SECOND).await;
            primary.resume().await?;
            traffic.answered(SECOND).await;
            primary.stop().await?;
            primary.rejoin(heir).await?;
            acknowledge_after_replication(heir, false).await?;
            return Ok(Some(promoted));
        }
        Fault::Switchover => {
            primary.stop().await?;
            let promoted = promote(one).await?;
            other.follow(one).await?;
            primary.rejoin(one).await?;
            return Ok(Some(promoted));
        }
        Fault::SplitBrain => {
            // Without this, the one that is left could lack what the other one had.
            acknowledge_after_replication(primary, true).await?;
            traffic.answered(SECOND / 2).await;
            primary.kill().await?;
            let (heir, contender) = most_advanced(one, other).await?;
            let (first, second) = tokio::join!(promote(heir), promote(contender));
            first.and(second)?;
            until(stage, |topology| matches!(topology.primary, PrimaryStatus::SplitBrain { .. })).await?;
            traffic.answered(SECOND).await;
            contender.stop().await?;
            traffic.answered(SECOND).await;
            // Two histories by one name: nothing can be rewound to where they part.
            contender.rebuild(heir).await?;
            primary.rejoin(heir).await?;
            acknowledge_after_replication(heir, false).await?;
        }
        Fault::EverythingDown => {
            let servers = stage.cluster().servers();
            for server in servers {
                server.kill().await?;
            }
            sleep(Duration::from_secs(5)).await;
            for server in servers {
                server.start().await?;
            }
        }
    }
    Ok(None)
}

/// Waits until the set sees it.
async fn until(stage: &Stage, condition: impl Fn(&pointsman::Topology) -> bool + Send) -> anyhow::Result<()> {
    let mut topology = stage.replicas().watch();
    let seen = topology.wait_for(|topology| condition(topology));
    let seen = tokio::time::timeout(Duration::from_secs(60), seen).await;
    seen.map(drop).map_err(|_| anyhow!("it was never seen: {:?}", stage.replicas().topology()))
}

/// Lets the primary acknowledge a write only when a replica has it, so that a promotion loses none.
///
/// With PostgreSQL's default, a primary that is killed takes what it had just acknowledged with it, whoever asks.
async fn acknowledge_after_replication(primary: &Server, on: bool) -> anyhow::Result<()> {
    let names = if on { "ANY 1 (*)" } else { "" };
    primary.execute(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'")).await?;
    primary.execute("SELECT pg_reload_conf()").await?;
    Ok(())
}

/// The replica that has received most, which is the one to promote, and the other one.
async fn most_advanced<'s>(one: &'s Server, other: &'s Server) -> anyhow::Result<(&'s Server, &'s Server)> {
    let received = "SELECT (pg_last_wal_receive_lsn() - '0/0')::bigint";
    let [first, second] = [one.query_value(received).await?, other.query_value(received).await?];
    let [first, second] = [first.parse::<i64>()?, second.parse::<i64>()?];
    Ok(if first >= second { (one, other) } else { (other, one) })
}

/// Promotes a server; gives the instant at which it took writes.
async fn promote(server: &Server) -> anyhow::Result<Instant> {
    let watched = server.clone();
    // Asked all the time, so that the instant is not a later one, which would flatter.
    let watcher: JoinHandle<anyhow::Result<Instant>> = tokio::spawn(async move {
        while watched.is_in_recovery().await? {
            sleep(Duration::from_millis(2)).await;
        }
        Ok(Instant::now())
    });
    server.promote().await?;
    watcher.await?
}

/// How many acknowledged writes the present primary doesn't have.
async fn lost(stage: &Stage, record: &Record, run: &str) -> Outcome<usize> {
    let (primary, _) = stage.roles().await?;
    let sql = format!(
        "SELECT coalesce(string_agg(provider_id, ','), '') FROM transactions \
         WHERE provider = 'demo' AND provider_id LIKE '{run}-%'"
    );
    let there = primary.query_value(&sql).await.context("the writes cannot be counted")?;
    let there: HashSet<&str> = there.split(',').collect();
    Ok(record.acknowledged().filter(|id| !there.contains(format!("{run}-{id}").as_str())).count())
}

fn summary(all: &[Noticed]) -> String {
    let lost: usize = all.iter().map(|noticed| noticed.lost_acknowledged_writes).sum();
    let verdict = match lost {
        0 => "No write that was acknowledged is missing.".to_owned(),
        lost => format!("{lost} writes that were acknowledged are missing."),
    };
    format!(
        "Every write that failed was answered with an error. {verdict}\nWhere a primary was killed or hung, it \
         acknowledged only what a replica had received (synchronous_standby_names)."
    )
}

fn heading() -> String {
    format!(
        "{:<64} {:>13} {:>12} {:>13} {:>6} {:>15}",
        "fault", "failed reads", "longest gap", "failed writes", "lost", "first write"
    )
}

fn row(noticed: &Noticed) -> String {
    let of = |failed: usize, all: usize| format!("{failed} of {all}");
    let first_write =
        noticed.first_write_after_promotion_ms.map_or("-".to_owned(), |ms| format!("after {ms} ms"));
    format!(
        "{:<64} {:>13} {:>12} {:>13} {:>6} {:>15}",
        noticed.name,
        of(noticed.failed_reads, noticed.reads),
        format!("{} ms", noticed.longest_read_gap_ms),
        of(noticed.failed_writes, noticed.writes),
        noticed.lost_acknowledged_writes,
        first_write,
    )
}
