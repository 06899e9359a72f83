//! One run: a cluster, two sets, sessions at work, faults, and the check of the record.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use pointsman::ReplicaSet;
use pointsman::testkit::Cluster;
use pointsman::testkit::wait::{until_all_serve, until_writable};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::checker::{Rule, Violation, violations};
use super::client::{CREATE_ENTRIES, Client};
use super::faults::{Faults, Log};
use super::history::{Action, Key, Operation, Outcome, Snapshot, WriteId};
use super::worker::Worker;
use crate::fixture::{config_of, connect};
use crate::test_error::TestResult;

const SESSIONS: u32 = 16;

/// A run that has ended.
pub(super) struct Run {
    seed: u64,
    pub(super) history: Vec<Operation>,
    hand_overs: usize,
    /// Errors by their kind.
    errors: BTreeMap<String, usize>,
    faults: Log,
    /// The state of the primary at the end.
    end: Snapshot,
}

/// Returns the number that an environment variable sets.
pub(super) fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

impl Run {
    /// Lets sessions work while faults are injected, and reads the state at the end.
    pub(super) async fn of(
        client: impl Fn(&ReplicaSet) -> Client,
        length: Duration,
        inject: impl AsyncFnOnce(&mut Faults<'_>) -> TestResult,
    ) -> TestResult<Self> {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let seed = from_environment("CAUSALITY_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
        println!("CAUSALITY_SEED={seed}");
        let mut rng = Rng::with_seed(seed);
        let cluster = Cluster::builder().replicas(2).start().await?;
        cluster.primary().execute(CREATE_ENTRIES).await?;
        cluster.wait_caught_up().await?;
        let sets =
            vec![connect(config_of(cluster.servers())).await?, connect(config_of(cluster.servers())).await?];

        // In a longer run more keys, so that the snapshots do not grow.
        let keys = 2 * Key::try_from(length.as_secs())?.max(5);
        let (stop, last_read, start) = (CancellationToken::new(), CancellationToken::new(), Instant::now());
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|session| {
                let client = client(&sets[session as usize % sets.len()]);
                let worker = Worker::new(session, client, sets.clone(), keys, start, rng.fork());
                tokio::spawn(worker.work(stop.clone(), last_read.clone()))
            })
            .collect();
        let mut faults = Faults::new(&cluster, rng.fork(), start);
        let injected = inject(&mut faults).await;
        if injected.is_err() {
            cluster.servers().iter().for_each(|server| println!("{}:\n{}", server.name(), server.log()));
            faults.log.iter().for_each(|(time, fault)| println!("{time:?}: {fault}"));
        }
        injected?;
        let mut faults = faults.log;
        faults.sort();
        stop.cancel();
        for set in &sets {
            until_writable(set).await?;
            until_all_serve(set).await?;
        }
        last_read.cancel();

        let (mut history, mut hand_overs, mut errors) = (Vec::new(), 0, BTreeMap::new());
        for session in sessions {
            let record = session.await?;
            history.extend(record.history);
            hand_overs += record.hand_overs;
            for (kind, number) in record.errors {
                *errors.entry(kind).or_default() += number;
            }
        }
        let end = state(&cluster, keys).await?;
        Ok(Self { seed, history, hand_overs, errors, faults, end })
    }

    /// Prints what happened, and returns how often each rule was broken.
    pub(super) fn check(&self) -> BTreeMap<Rule, usize> {
        println!("{self}");
        let began = Instant::now();
        let found = violations(&self.history, &self.end);
        let mut broken = BTreeMap::new();
        for violation in &found {
            *broken.entry(violation.rule).or_default() += 1;
        }
        println!("checked in {:?}, violations: {broken:?}", began.elapsed());
        broken.keys().for_each(|rule| self.explain(*rule, &found));
        broken
    }

    /// Prints the first violations of a rule.
    fn explain(&self, rule: Rule, found: &[Violation]) {
        let mut found: Vec<_> = found.iter().filter(|violation| violation.rule == rule).collect();
        found.sort_by_key(|violation| violation.began);
        for violation in found.iter().take(3) {
            println!("    {violation}");
        }
    }

    /// Prints the faults.
    pub(super) fn print_faults(&self) {
        println!("faults of the run with CAUSALITY_SEED={}:", self.seed);
        for (time, fault) in &self.faults {
            println!("    {time:?}: {fault}");
        }
    }

    /// Returns the number of operations that fulfil a condition.
    pub(super) fn count(&self, condition: impl Fn(&Action) -> bool) -> usize {
        self.history.iter().filter(|operation| condition(&operation.action)).count()
    }

    /// Returns the number of reported losses after which nothing was missing that the session had known.
    ///
    /// A token may be a little further than what its session wrote and read, so some are expected.
    fn needless_reports(&self) -> usize {
        let mut has_lost: BTreeMap<u32, bool> = BTreeMap::new();
        let mut needless = 0;
        for operation in &self.history {
            let has_lost = has_lost.entry(operation.session).or_default();
            let mut known = operation.action.seen().cloned().unwrap_or_default();
            match operation.action {
                Action::LossReported => needless += usize::from(!std::mem::take(has_lost)),
                Action::Write { write, key, outcome: Outcome::Acknowledged, .. } => {
                    known.entry(key).or_default().insert(write);
                }
                _ => {}
            }
            *has_lost |= known.iter().any(|(key, writes)| !writes.is_subset(&self.end[key]));
        }
        needless
    }

    /// Returns the time of the first failover.
    pub(super) fn first_failover(&self) -> Option<Duration> {
        self.faults.iter().find(|(_, fault)| fault.starts_with("failover")).map(|(time, _)| *time)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let writes = |wanted| {
            self.count(|action| matches!(action, Action::Write { outcome, .. } if *outcome == wanted))
        };
        let lost = self.count(|action| match action {
            Action::Write { write, key, outcome: Outcome::Acknowledged, .. } => {
                self.end.get(key).is_none_or(|there| !there.contains(write))
            }
            _ => false,
        });
        writeln!(
            f,
            "{} operations: {} reads on replicas and {} on the primary; {} writes acknowledged, {} unknown and {} \
             failed; {} hand-overs",
            self.history.len(),
            self.count(|action| matches!(action, Action::Read { by_replica: true, .. })),
            self.count(|action| matches!(action, Action::Read { by_replica: false, .. })),
            writes(Outcome::Acknowledged),
            writes(Outcome::Unknown),
            writes(Outcome::Failed),
            self.hand_overs,
        )?;
        let losses = self.count(|action| matches!(action, Action::LossReported));
        let needless = self.needless_reports();
        writeln!(
            f,
            "{lost} acknowledged writes lost; {losses} losses reported, {needless} of them with nothing missing"
        )?;
        write!(f, "errors: {:?}", self.errors)
    }
}

/// Returns the state of the present primary.
async fn state(cluster: &Cluster, keys: Key) -> TestResult<Snapshot> {
    let query = "SELECT coalesce(string_agg(key || ' ' || id, ','), '') FROM entries";
    let rows = cluster.current_primary().await?.query_value(query).await?;
    let mut state: Snapshot = (0..keys).map(|key| (key, Default::default())).collect();
    for row in rows.split(',').filter(|row| !row.is_empty()) {
        let (key, id) = row.split_once(' ').expect("two columns");
        state.entry(key.parse()?).or_default().insert(WriteId::from_row(id.parse()?));
    }
    Ok(state)
}
