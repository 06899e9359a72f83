//! The walk through the faults: break, observe, restore, observe.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use pointsman::testkit::{Sample, Server, WriteOutcome, wait};
use pointsman::topology::PrimaryStatus;
use tokio::time::{Instant, sleep};

use super::fixture::Fixture;
use super::traffic::Traffic;
use super::verdict::{Fault, Noticed, WALK, unexplained};
use crate::failure::{Failure, Outcome};

/// Requests a second that a debug build serves on two busy cores.
const READS_PER_SECOND: u32 = 200;
const WRITES_PER_SECOND: u32 = 50;

/// Requests per second.
const SECOND: u64 = (READS_PER_SECOND + WRITES_PER_SECOND) as u64;

/// Goes through all faults, and reports the effects that users noticed of each.
pub(super) async fn walk(fixture: &Fixture, json: Option<&Path>) -> Outcome {
    if let Some(path) = json {
        // Now, not after some minutes, so that an unwritable file is known early.
        std::fs::write(path, "[]\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{READS_PER_SECOND} reads and {WRITES_PER_SECOND} writes a second go to {}.\n", fixture.url());
    println!("{}", heading());
    let (mut all, mut not_explained) = (Vec::new(), Vec::new());
    for fault in WALK {
        let noticed = go_through(fixture, fault).await?;
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

async fn go_through(fixture: &Fixture, fault: Fault) -> Outcome<Noticed> {
    let traffic = Traffic::start(fixture, READS_PER_SECOND, WRITES_PER_SECOND);
    traffic.answered(SECOND).await;
    let instants = inject(fixture, &traffic, fault).await.with_context(|| fault.name().to_owned())?;
    fixture.until_well().await?;
    traffic.answered(SECOND).await;
    let (report, run) = traffic.stop().await;
    tracing::debug!(fault = fault.name(), %report, "noticed");
    let there = recorded(fixture, &run).await?;
    let is_there = |write: &Sample| there.contains(&format!("{run}-{}", write.id));
    let lost: Vec<_> = report
        .writes
        .iter()
        .filter(|write| write.outcome == WriteOutcome::Acknowledged && !is_there(write))
        .collect();
    let between =
        |write: &&&Sample| instants.conflict.is_some_and(|(from, to)| (from..=to).contains(&write.ended));
    let ms = |time: Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
    Ok(Noticed {
        name: fault.name(),
        reads: report.reads.len(),
        failed_reads: by_code(report.failed_reads()),
        longest_read_gap_ms: ms(report.longest_read_gap()),
        slowest_read_ms: ms(report.slowest_read()),
        writes: report.writes.len(),
        failed_writes: by_code(report.failed_writes()),
        lost_acknowledged_writes: lost.len(),
        lost_between_promotions: lost.iter().filter(between).count(),
        failed_but_carried_out: report
            .writes
            .iter()
            .filter(|write| matches!(write.outcome, WriteOutcome::Failed(_)) && is_there(write))
            .count(),
        was_promoted: instants.promoted.is_some(),
        first_write_after_promotion_ms: instants.promoted.and_then(|at| report.first_write_after(at)).map(ms),
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
struct Instants {
    /// The instant at which the promoted server took writes.
    promoted: Option<Instant>,
    /// Time from the first of two promotions until the set stopped all writes.
    conflict: Option<(Instant, Instant)>,
}

impl Instants {
    fn promoted(at: Instant) -> Self {
        Self { promoted: Some(at), conflict: None }
    }
}

/// Time for an answer under way at a conflict to reach its user.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// Injects a fault, observes for a while, and restores the servers.
async fn inject(fixture: &Fixture, traffic: &Traffic, fault: Fault) -> anyhow::Result<Instants> {
    let (primary, replicas) = fixture.roles().await?;
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
            wait::until_node(fixture.set(), one.name(), "is left out", |node| !node.serves_reads).await?;
            traffic.answered(SECOND).await;
            one.reconnect_to_primary().await?;
        }
        Fault::PrimaryKilled => {
            acknowledge_after_replication(primary, true).await?;
            traffic.answered(SECOND / 2).await;
            primary.kill().await?;
            traffic.answered(SECOND / 2).await;
            let (new_primary, follower) = most_advanced(one, other).await?;
            let promoted = new_primary.promote().await?;
            follower.follow(new_primary).await?;
            traffic.answered(SECOND).await;
            primary.rejoin(new_primary).await?;
            acknowledge_after_replication(primary, false).await?;
            return Ok(Instants::promoted(promoted));
        }
        Fault::PrimaryHangs => {
            acknowledge_after_replication(primary, true).await?;
            traffic.answered(SECOND / 2).await;
            primary.pause().await?;
            let (new_primary, follower) = most_advanced(one, other).await?;
            let promoted = new_primary.promote().await?;
            follower.follow(new_primary).await?;
            traffic.answered(SECOND).await;
            primary.resume().await?;
            traffic.answered(SECOND).await;
            primary.stop().await?;
            primary.rejoin(new_primary).await?;
            acknowledge_after_replication(primary, false).await?;
            return Ok(Instants::promoted(promoted));
        }
        Fault::Switchover => {
            primary.stop().await?;
            let promoted = one.promote().await?;
            other.follow(one).await?;
            primary.rejoin(one).await?;
            return Ok(Instants::promoted(promoted));
        }
        Fault::SplitBrain => {
            // Without this, the remaining server could lack WAL that the other one had.
            acknowledge_after_replication(primary, true).await?;
            traffic.answered(SECOND / 2).await;
            primary.kill().await?;
            let (new_primary, conflicting) = most_advanced(one, other).await?;
            let first = Instant::now();
            let (one, other) = tokio::join!(new_primary.promote(), conflicting.promote());
            one.and(other)?;
            wait::until_topology(fixture.set(), "the set sees two primaries", |topology| {
                matches!(topology.primary, PrimaryStatus::SplitBrain { .. })
            })
            .await?;
            let conflict = Some((first, Instant::now() + ON_ITS_WAY));
            traffic.answered(SECOND).await;
            // Stopping it is not enough, because it may come back. Writes go on once it is a standby of the other one.
            conflicting.stop().await?;
            // These are two histories by one name: nothing can be rewound to where they part.
            conflicting.rebuild(new_primary).await?;
            traffic.answered(SECOND).await;
            primary.rejoin(new_primary).await?;
            acknowledge_after_replication(primary, false).await?;
            return Ok(Instants { promoted: None, conflict });
        }
        Fault::EverythingDown => {
            let servers = fixture.cluster().servers();
            for server in servers {
                server.kill().await?;
            }
            sleep(Duration::from_secs(5)).await;
            for server in servers {
                server.start().await?;
            }
        }
    }
    Ok(Instants::default())
}

/// Lets the primary acknowledge a write only when a replica has it.
///
/// With PostgreSQL's default, a killed primary may lose the last writes that it acknowledged.
async fn acknowledge_after_replication(primary: &Server, on: bool) -> anyhow::Result<()> {
    Ok(primary.change_setting("synchronous_standby_names", if on { "ANY 1 (*)" } else { "" }).await?)
}

/// Returns the replica that has received the most WAL, and the other one.
async fn most_advanced<'s>(one: &'s Server, other: &'s Server) -> anyhow::Result<(&'s Server, &'s Server)> {
    let received = "SELECT (pg_last_wal_receive_lsn() - '0/0')::bigint";
    let [first, second] = [one.query_value(received).await?, other.query_value(received).await?];
    let [first, second] = [first.parse::<i64>()?, second.parse::<i64>()?];
    Ok(if first >= second { (one, other) } else { (other, one) })
}

/// Returns the ids of the writes that the present primary has.
async fn recorded(fixture: &Fixture, run: &str) -> Outcome<HashSet<String>> {
    let (primary, _) = fixture.roles().await?;
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
