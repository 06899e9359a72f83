//! One run: a cluster, a set, the events of a schedule, the repair, and the checks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use pointsman::config::{NodeConfig, PoolSettings, TimeoutSettings, WriteSettings};
use pointsman::health::{NodeReport, Status};
use pointsman::testkit::simulation::{Defect, over, seed_defect};
use pointsman::topology::NodeStatus;
use pointsman::{Config, ReplicaSet};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::checker::{Truth, check};
use crate::faults::{apply, follow, repair};
use crate::network::SimulatedNetwork;
use crate::operations::{Done, Operation, Outcome};
use crate::schedule::{Event, REPAIR, SESSIONS, Schedule};
use crate::server::cluster::{Cluster, name};
use crate::server::node::{Node, Power};

/// The numbers of a run without a violation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) operations: usize,
    pub(crate) written: usize,
    pub(crate) failed: usize,
    pub(crate) unknown: usize,
    /// Virtual milliseconds until the set was healthy after the repair.
    pub(crate) healthy_after: u128,
}

/// The rule that a run violated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) String);

impl Violation {
    /// Returns the rule that was violated: the text up to the first colon.
    pub(crate) fn rule(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Time in which the set must be healthy after the last fault.
const HEALTHY: Duration = Duration::from_secs(5);

/// Connections of a pool; few, so that a leaked permit shows.
const MAX_SIZE: u32 = 4;

/// Time in which tasks that do nothing any more must have ended, such as the pools' reapers.
const TASKS_END: Duration = Duration::from_secs(65);

/// Runs a schedule.
pub(crate) fn run(schedule: &Schedule, defect: Option<Defect>) -> Result<Stats, Violation> {
    fastrand::seed(schedule.seed);
    seed_defect(defect);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    let outcome = runtime.block_on(simulate(schedule));
    seed_defect(None);
    outcome
}

async fn simulate(schedule: &Schedule) -> Result<Stats, Violation> {
    let began = Instant::now();
    let rng = Rng::with_seed(schedule.seed ^ 0x5eed);
    let cluster = Cluster::new(schedule, rng);
    let life = tokio::spawn(cluster.clone().run());
    let set = connect(&cluster, schedule.nodes).await;
    cluster.observer().watch(Some(set.clone()));
    let watcher = tokio::spawn(observe(set.clone(), cluster.clone()));

    let operations = play(schedule, &cluster, &set, began).await;
    sleep_until(began + REPAIR).await;
    let healthy_after = heal(&cluster, &set).await?;
    let done = finish(operations).await?;
    exam(&set).await?;
    check(&done, &Truth::of(&cluster))?;

    watcher.abort();
    cluster.observer().watch(None);
    close(set, &cluster).await?;
    life.abort();
    drop(life);
    no_task_is_left(&cluster).await?;
    Ok(stats(&done, healthy_after))
}

async fn connect(cluster: &Cluster, nodes: usize) -> ReplicaSet {
    let mut config = Config::builder()
        .pool(PoolSettings { max_size: MAX_SIZE, ..PoolSettings::default() })
        .timeouts(TimeoutSettings { checkout: Duration::from_secs(3), ..TimeoutSettings::default() })
        .writes(WriteSettings { failover_wait: Duration::from_secs(8), ..WriteSettings::default() });
    for node in 0..nodes {
        let url = format!("postgres://app@{}:5432/app?sslmode=disable", name(node));
        let node_config = if node == 0 { NodeConfig::primary(url) } else { NodeConfig::replica(url) };
        config = config.node(node_config.expect("a valid URL").with_name(name(node)));
    }
    let config =
        over(config.build().expect("a valid configuration"), Arc::new(SimulatedNetwork(cluster.clone())));
    ReplicaSet::connect(config).await.expect("nothing is read from files")
}

/// Records each change of the topology.
async fn observe(set: ReplicaSet, cluster: Cluster) {
    let mut changes = set.watch();
    drop(set);
    while changes.changed().await.is_ok() {
        cluster.observer().highest();
    }
}

/// Plays the events at their times; returns the operations.
async fn play(schedule: &Schedule, cluster: &Cluster, set: &ReplicaSet, began: Instant) -> JoinSet<Done> {
    let sessions: Vec<_> = (0..SESSIONS).map(|_| set.session()).collect();
    let mut operations = JoinSet::new();
    for (at, event) in &schedule.events {
        sleep_until(began + *at).await;
        match event {
            Event::Fault(fault) => apply(cluster, *fault),
            Event::Operation(operation) => {
                let (running, cluster) = (operation.run(set.clone(), sessions.clone()), cluster.clone());
                operations.spawn(async move {
                    let done = running.await;
                    let seen = cluster.observer().highest();
                    let has = |entry| cluster.lock().has_taken_over(entry, seen);
                    let is_there = done.operation.entry().is_some_and(has);
                    Done { is_there, ..done }
                });
            }
        }
    }
    operations
}

/// Repairs the cluster, and waits until the set is healthy; returns how long that took.
async fn heal(cluster: &Cluster, set: &ReplicaSet) -> Result<u128, Violation> {
    let primary = repair(cluster);
    let until_running = async || {
        while !cluster.lock().nodes.iter().all(|node| node.power == Power::Running) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    while !cluster.lock().nodes[primary].is_serving() {
        sleep(Duration::from_millis(1)).await;
    }
    follow(cluster, primary);
    until_running().await;
    let repaired = Instant::now();
    let healthy = async {
        while set.health().status != Status::Healthy {
            sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(HEALTHY, healthy).await.is_err() {
        return Err(Violation(format!(
            "not healthy {HEALTHY:?} after the last fault: {}",
            shown(set, cluster)
        )));
    }
    Ok(repaired.elapsed().as_millis())
}

/// Returns what the set shows of its nodes, beside the truth.
fn shown(set: &ReplicaSet, cluster: &Cluster) -> String {
    let (health, state) = (set.health(), cluster.lock());
    let node = |(node, truth): (&NodeReport, &Node)| {
        let NodeStatus { name, role, health, reason, timeline, lag, .. } = &node.status;
        format!(
            "\n        {name}: {role} {health} {timeline:?} {lag:?} {reason:?}; truth: {:?}, timeline {} ({}), standby: {:?}",
            truth.power, truth.timeline, truth.control_timeline, truth.standby
        )
    };
    let nodes: String = health.nodes.iter().zip(&state.nodes).map(node).collect();
    format!("{:?}, {:?}{nodes}", health.status, health.primary)
}

/// Longest time that the operations may still take after the repair.
const LAST_OPERATION: Duration = Duration::from_secs(30);

async fn finish(mut operations: JoinSet<Done>) -> Result<Vec<Done>, Violation> {
    let deadline = Instant::now() + LAST_OPERATION;
    let mut done = Vec::new();
    loop {
        match tokio::time::timeout_at(deadline, operations.join_next()).await {
            Ok(Some(operation)) => {
                done.push(operation.map_err(|error| Violation(format!("a panic: {error}")))?)
            }
            Ok(None) => break,
            Err(_) => return Err(Violation(format!("{} operations never end", operations.len()))),
        }
    }
    done.sort_by_key(|done| done.ended);
    Ok(done)
}

/// Uses every permit of the set at once, which fails if one has leaked.
async fn exam(set: &ReplicaSet) -> Result<(), Violation> {
    let mut held = Vec::new();
    let all = async {
        for number in 0..MAX_SIZE {
            held.push(
                set.write()
                    .await
                    .map_err(|error| Violation(format!("write {number} of the exam: {error}")))?,
            );
        }
        Ok(())
    };
    timeout(Duration::from_secs(2), all).await.unwrap_or_else(|_| {
        Err(Violation("a healthy set does not hand out all connections to write".to_owned()))
    })?;
    drop(held);
    let mut reads = JoinSet::new();
    let nodes = u32::try_from(set.topology().nodes.len()).unwrap_or(1);
    for account in 0..i32::try_from(MAX_SIZE * nodes * 2).unwrap_or(8) {
        reads.spawn(Operation::Read { account }.run(set.clone(), Vec::new()));
    }
    while let Some(read) = reads.join_next().await {
        let read = read.map_err(|error| Violation(format!("a panic: {error}")))?;
        if !matches!(read.outcome, Outcome::Read(_)) || read.ended - read.began > Duration::from_secs(1) {
            return Err(Violation(format!("a read of the exam: {read:?}")));
        }
    }
    Ok(())
}

async fn close(set: ReplicaSet, cluster: &Cluster) -> Result<(), Violation> {
    let in_use: u32 = set.health().nodes.iter().map(|node| node.in_use).sum();
    let began = Instant::now();
    if let Err(error) = set.close().await {
        return Err(Violation(format!("close: {error}")));
    }
    if began.elapsed() > Duration::from_secs(3) {
        return Err(Violation(format!("close took {:?} with {in_use} connections in use", began.elapsed())));
    }
    drop(set);
    sleep(Duration::from_secs(2)).await;
    let left = cluster.lock().sessions.len();
    if left > 0 { Err(Violation(format!("{left} sessions are left after `close`"))) } else { Ok(()) }
}

async fn no_task_is_left(cluster: &Cluster) -> Result<(), Violation> {
    let deadline = Instant::now() + TASKS_END;
    let metrics = tokio::runtime::Handle::current().metrics();
    while metrics.num_alive_tasks() > 0 {
        if Instant::now() >= deadline {
            let sessions = cluster.lock().sessions.len();
            let tasks = metrics.num_alive_tasks();
            return Err(Violation(format!("{tasks} tasks are left after `close`, and {sessions} sessions")));
        }
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

fn stats(done: &[Done], healthy_after: u128) -> Stats {
    let mut stats = Stats { operations: done.len(), healthy_after, ..Stats::default() };
    for done in done {
        match done.outcome {
            Outcome::Written | Outcome::Resolved(_) => stats.written += 1,
            Outcome::Unknown => stats.unknown += 1,
            Outcome::Failed(_) => stats.failed += 1,
            Outcome::Read(_) | Outcome::Lost | Outcome::Abandoned => {}
        }
    }
    stats
}
