//! The walk through the faults: break, observe, restore, observe.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use pointsman::testkit::{Sample, Server, WriteOutcome};
use pointsman::topology::PrimaryStatus;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::stage::Stage;
use super::traffic::Traffic;
use super::verdict::{Fault, Noticed, WALK, unexplained};
use crate::failure::{Failure, Outcome};

/// Requests a second that a debug build serves on two cores, also with another build beside it.
const READS_PER_SECOND: u32 = 200;
const WRITES_PER_SECOND: u32 = 50;

/// Requests per second.
const SECOND: u64 = (READS_PER_SECOND + WRITES_PER_SECOND) as u64;

/// Goes through all faults, and reports the effects that users noticed of each.
pub(super) async fn walk(stage: &Stage, json: Option<&Path>) -> Outcome {
    if let Some(path) = json {
        // Now, not after some minutes, so that an unwritable file is known early.
        std::fs::write(path, "[]\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{READS_PER_SECOND} reads and {WRITES_PER_SECOND} writes a second go to {}.\n", stage.url());
    println!("{}", heading());
    let (mut all, mut not_explained) = (Vec::new(), Vec::new());
    for fault in WALK {
        let noticed = go_through(stage, fault).await?;
        println!("{}", row(fault, &noticed));
        for problem in unexplained(fault, &noticed) {
            println!("  NOT EXPLAINED: {problem}");
            not_explained.push(format!("{}: {problem}", fault.name()));
        }
        all.push(noticed);
        if let Some(path) = json {
            let text = serde_json::to_string_pretty(&all).context("the report cannot be written")?;
            std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    println!("\n{}", summary(&all));
    if not_explained.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(anyhow!(
        "the users noticed what these faults do not explain:\n  - {}",
        not_explained.join("\n  - ")
    )))
}

async fn go_through(stage: &Stage, fault: Fault) -> Outcome<Noticed> {
    let traffic = Traffic::start(stage, READS_PER_SECOND, WRITES_PER_SECOND);
    traffic.answered(SECOND).await;
    let struck = strike(stage, &traffic, fault).await.with_context(|| fault.name().to_owned())?;
    stage.until_well().await?;
    traffic.answered(SECOND).await;
    let (record, run) = traffic.stop().await;
    tracing::debug!(fault = fault.name(), %record, "noticed");
    let there = recorded(stage, &run).await?;
    let is_there = |write: &Sample| there.contains(&format!("{run}-{}", write.id));
    let lost: Vec<_> = record
        .writes
        .iter()
        .filter(|write| write.outcome == WriteOutcome::Acknowledged && !is_there(write))
        .collect();
    let between =
        |write: &&&Sample| struck.conflict.is_some_and(|(from, to)| (from..=to).contains(&write.ended));
    let ms = |time: Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
    Ok(Noticed {
        name: fault.name(),
        reads: record.reads.len(),
        failed_reads: by_code(record.failed_reads()),
        longest_read_gap_ms: ms(record.longest_read_gap()),
        slowest_read_ms: ms(record.slowest_read()),
        writes: record.writes.len(),
        failed_writes: by_code(record.failed_writes()),
        lost_acknowledged_writes: lost.len(),
        lost_between_promotions: lost.iter().filter(between).count(),
        failed_but_carried_out: record
            .writes
            .iter()
            .filter(|write| matches!(write.outcome, WriteOutcome::Failed(_)) && is_there(write))
            .count(),
        was_promoted: struck.promoted.is_some(),
        first_write_after_promotion_ms: struck.promoted.and_then(|at| record.first_write_after(at)).map(ms),
    })
}

/// Failures by the service's code, or by the client's error if there was no answer.
fn by_code<'s>(failed: impl Iterator<Item = &'s Sample>) -> BTreeMap<String, usize> {
    failed.fold(BTreeMap::new(), |mut codes, sample| {
        if let WriteOutcome::Failed(text) | WriteOutcome::Unknown(text) = &sample.outcome {
            *codes.entry(text.rsplit(": ").next().unwrap_or_default().to_owned()).or_default() += 1;
        }
        codes
    })
}

/// The instants of a fault.
#[derive(Default)]
struct Struck {
    /// The instant at which the promoted server took writes.
    promoted: Option<Instant>,
    /// Time from the first of two promotions until the set stopped all writes.
    conflict: Option<(Instant, Instant)>,
}

impl Struck {
    fn promoted(at: Instant) -> Self {
        Self { promoted: Some(at), conflict: None }
    }
}

/// Time for an answer under way at a conflict to reach its user.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// Breaks something, observes for a while, and restores it.
async fn strike(stage: &Stage, traffic: &Traffic, fault: Fault) -> anyhow::Result<Struck> {
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
            // By default a replica may be ten seconds behind before reads leave it out.
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
            return Ok(Struck::promoted(promoted));
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
            return Ok(Struck::promoted(promoted));
        }
        Fault::Switchover => {
            primary.stop().await?;
            let promoted = promote(one).await?;
            other.follow(one).await?;
            primary.rejoin(one).await?;
            return Ok(Struck::promoted(promoted));
        }
        Fault::SplitBrain => {
            // Without this, the remaining server could lack WAL that the other one had.
            acknowledge_after_replication(primary, true).await?;
            traffic.answered(SECOND / 2).await;
            primary.kill().await?;
            let (heir, contender) = most_advanced(one, other).await?;
            let first = Instant::now();
            let (one, other) = tokio::join!(promote(heir), promote(contender));
            one.and(other)?;
            until(stage, |topology| matches!(topology.primary, PrimaryStatus::SplitBrain { .. })).await?;
            let conflict = Some((first, Instant::now() + ON_ITS_WAY));
            traffic.answered(SECOND).await;
            // Stopping it is not enough, because it may come back. Writes go on once it is a standby of the other one.
            contender.stop().await?;
            // These are two histories by one name: nothing can be rewound to where they part.
            contender.rebuild(heir).await?;
            traffic.answered(SECOND).await;
            primary.rejoin(heir).await?;
            acknowledge_after_replication(heir, false).await?;
            return Ok(Struck { promoted: None, conflict });
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
    Ok(Struck::default())
}

/// Waits until the set sees the condition.
async fn until(stage: &Stage, condition: impl Fn(&pointsman::Topology) -> bool + Send) -> anyhow::Result<()> {
    let mut topology = stage.replicas().watch();
    let seen = topology.wait_for(|topology| condition(topology));
    let seen = tokio::time::timeout(Duration::from_secs(60), seen).await;
    seen.map(drop).map_err(|_| anyhow!("it was never seen: {:?}", stage.replicas().topology()))
}

/// Makes the primary acknowledge a write only when a replica has it.
///
/// With PostgreSQL's default, a killed primary may lose the last writes that it acknowledged.
async fn acknowledge_after_replication(primary: &Server, on: bool) -> anyhow::Result<()> {
    let names = if on { "ANY 1 (*)" } else { "" };
    primary.execute(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'")).await?;
    primary.execute("SELECT pg_reload_conf()").await?;
    Ok(())
}

/// Returns the replica that has received the most WAL, to promote it, and the other one.
async fn most_advanced<'s>(one: &'s Server, other: &'s Server) -> anyhow::Result<(&'s Server, &'s Server)> {
    let received = "SELECT (pg_last_wal_receive_lsn() - '0/0')::bigint";
    let [first, second] = [one.query_value(received).await?, other.query_value(received).await?];
    let [first, second] = [first.parse::<i64>()?, second.parse::<i64>()?];
    Ok(if first >= second { (one, other) } else { (other, one) })
}

/// Promotes a server; returns the instant at which it took writes.
async fn promote(server: &Server) -> anyhow::Result<Instant> {
    let watched = server.clone();
    // Polled without a pause, because a late instant would make the gap look shorter.
    let watcher: JoinHandle<anyhow::Result<Instant>> = tokio::spawn(async move {
        while watched.is_in_recovery().await? {
            sleep(Duration::from_millis(2)).await;
        }
        Ok(Instant::now())
    });
    server.promote().await?;
    watcher.await?
}

/// Returns the ids of the writes that the present primary has.
async fn recorded(stage: &Stage, run: &str) -> Outcome<HashSet<String>> {
    let (primary, _) = stage.roles().await?;
    let sql = format!(
        "SELECT coalesce(string_agg(provider_id, ','), '') FROM transactions \
         WHERE provider = 'demo' AND provider_id LIKE '{run}-%'"
    );
    let there = primary.query_value(&sql).await.context("the writes cannot be counted")?;
    Ok(there.split(',').map(str::to_owned).collect())
}

fn summary(all: &[Noticed]) -> String {
    let lost: usize = all.iter().map(|noticed| noticed.lost_acknowledged_writes).sum();
    let verdict = match lost {
        0 => "No write that was acknowledged is missing.".to_owned(),
        lost => format!(
            "{lost} writes that were acknowledged are missing: the table says where, and whether they may be."
        ),
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

fn row(fault: Fault, noticed: &Noticed) -> String {
    let of =
        |failed: &BTreeMap<String, usize>, all: usize| format!("{} of {all}", failed.values().sum::<usize>());
    let allowed = fault.allowed();
    let codes = |codes: &[&str]| if codes.is_empty() { "none".to_owned() } else { codes.join(", ") };
    let first_write =
        noticed.first_write_after_promotion_ms.map_or("-".to_owned(), |ms| format!("after {ms} ms"));
    format!(
        "{:<64} {:>13} {:>12} {:>13} {:>6} {:>15}\n  may fail: reads {}, writes {}; may be lost: {}",
        noticed.name,
        of(&noticed.failed_reads, noticed.reads),
        format!("{} ms", noticed.longest_read_gap_ms),
        of(&noticed.failed_writes, noticed.writes),
        noticed.lost_acknowledged_writes,
        first_write,
        codes(allowed.reads),
        codes(allowed.writes),
        allowed.lost,
    )
}
