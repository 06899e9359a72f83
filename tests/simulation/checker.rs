//! Compares what the users got with the truth of the cluster.
//!
//! * No write is accepted by a stale primary if it was sent after the set had seen the newer timeline.
//! * An acknowledged write was committed; one that failed was not; no row is there twice.
//! * A resolved transaction has the reported outcome.
//! * No read fails while a node could serve.
//! * Nothing takes longer than its deadline.
//! * A session sees its own writes, and its reads never go back, unless it was told of a loss.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pointsman::CommitOutcome;
use tokio::time::Instant;

use crate::operations::{Done, Operation, Outcome, READ_LIMIT};
use crate::run::Violation;
use crate::schedule::SESSIONS;
use crate::server::cluster::Cluster;
use crate::server::wal::{Database, Entry};

/// The truth at the end of a run.
pub(crate) struct Truth {
    commits: Vec<(Entry, usize)>,
    violations: Vec<String>,
    /// The data of the last primary.
    end: Database,
    sound_since: Vec<Option<Instant>>,
    /// `true` if a COMMIT waits for one standby, which no limit of the set ends.
    synchronous: bool,
    /// `true` if an operator chose another history than that of the highest timeline, which brings rows back and takes
    /// others away. Two promotions to one timeline are such a choice.
    reverted: bool,
}

impl Truth {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let state = cluster.lock();
        let primary = state.nodes.iter().find(|node| !node.in_recovery()).expect("a primary");
        Self {
            commits: state.commits.clone(),
            violations: state.violations.clone(),
            end: primary.database.clone(),
            sound_since: state.nodes.iter().map(|node| node.sound_since).collect(),
            synchronous: state.synchronous,
            reverted: state.reverted,
        }
    }
}

/// Longest time of a write: the wait for a primary, for a connection, and for the end of a node that hangs.
const WRITE_LIMIT: Duration = Duration::from_secs(8 + 3 + 5);

/// Time that a statement may take on a node that hangs, until its monitor ends it.
const HANG: Duration = Duration::from_secs(5);

/// Time after which the set must know that a node is sound.
const NOTICED: Duration = Duration::from_secs(3);

/// Checks all operations.
pub(crate) fn check(done: &[Done], truth: &Truth) -> Result<(), Violation> {
    if let Some(violation) = truth.violations.first() {
        return Err(Violation(violation.clone()));
    }
    for done in done {
        check_write(done, truth)?;
        check_read(done, truth)?;
        check_time(done, truth)?;
    }
    if truth.reverted {
        return Ok(());
    }
    (0..SESSIONS).try_for_each(|session| check_session(session, done))
}

fn violation(rule: &str, done: &Done) -> Result<(), Violation> {
    let Done { operation, outcome, began, ended, .. } = done;
    Err(Violation(format!("{rule}: {operation:?} took {:?}: {outcome:?}", *ended - *began)))
}

fn check_write(done: &Done, truth: &Truth) -> Result<(), Violation> {
    let Some(entry) = done.operation.entry() else { return Ok(()) };
    let is_committed = truth.commits.iter().any(|(of, _)| *of == entry);
    match &done.outcome {
        Outcome::Written if !is_committed => violation("acknowledged and never committed", done),
        // An earlier run of it may be committed on a history that a failover has ended.
        Outcome::Failed(_) if matches!(done.operation, Operation::Once { .. }) => {
            if !truth.reverted && truth.end.count(entry) > 0 {
                return violation("failed and committed", done);
            }
            Ok(())
        }
        Outcome::Failed(_) | Outcome::Lost if is_committed => violation("failed and committed", done),
        Outcome::Resolved(CommitOutcome::Committed) if !truth.reverted && !done.is_there => {
            violation("resolved wrongly", done)
        }
        Outcome::Resolved(CommitOutcome::RolledBack) if !truth.reverted && truth.end.count(entry) > 0 => {
            violation("resolved wrongly", done)
        }
        _ if !truth.reverted && truth.end.count(entry) > 1 => violation("committed twice", done),
        _ => Ok(()),
    }
}

fn check_read(done: &Done, truth: &Truth) -> Result<(), Violation> {
    let Operation::Read { .. } = done.operation else { return Ok(()) };
    let could_serve = truth.sound_since.iter().flatten().any(|since| *since + NOTICED <= done.began);
    match &done.outcome {
        Outcome::Failed(_) if could_serve => violation("failed while a node could serve", done),
        _ => Ok(()),
    }
}

fn check_time(done: &Done, truth: &Truth) -> Result<(), Violation> {
    let limit = match done.operation {
        Operation::Read { .. } | Operation::SessionRead { .. } => READ_LIMIT + HANG,
        _ if truth.synchronous && done.operation.entry().is_some() => return Ok(()),
        Operation::Write { .. } | Operation::SessionWrite { .. } | Operation::Bare { .. } => WRITE_LIMIT,
        Operation::Resolvable { .. } | Operation::Once { .. } => 3 * WRITE_LIMIT,
        Operation::AbandonedWrite { .. } | Operation::AbandonedRead { .. } => Duration::from_secs(1),
    };
    if done.ended - done.began > limit { violation("beyond its deadline", done) } else { Ok(()) }
}

fn check_session(session: usize, done: &[Done]) -> Result<(), Violation> {
    let of_session = |done: &&Done| match done.operation {
        Operation::SessionRead { session: of } | Operation::SessionWrite { session: of, .. } => of == session,
        _ => false,
    };
    let all: Vec<_> = done.iter().filter(of_session).collect();
    let losses: Vec<_> =
        all.iter().filter(|done| done.outcome == Outcome::Lost).map(|done| done.ended).collect();
    let mut known: BTreeMap<Instant, BTreeSet<i64>> = BTreeMap::new();
    for done in &all {
        let learned: BTreeSet<i64> = match (&done.outcome, done.operation) {
            (Outcome::Read(ids), _) => ids.iter().copied().collect(),
            (Outcome::Written, Operation::SessionWrite { id, .. }) => BTreeSet::from([id]),
            _ => continue,
        };
        if let Outcome::Read(ids) = &done.outcome {
            let lost = losses.iter().copied().filter(|loss| *loss <= done.ended).max();
            // At the same millisecond, the order is unknown.
            let before = known.iter().filter(|(ended, _)| **ended < done.began);
            // What was learned by an operation that began before a loss was told may be what is lost.
            let since = before.filter(|(ended, _)| lost.is_none_or(|lost| **ended > lost));
            let missing = since.flat_map(|(_, ids)| ids).find(|id| !ids.contains(id));
            if missing.is_some() {
                return violation(&format!("session {session} misses row {missing:?}"), done);
            }
        }
        known.entry(done.ended).or_default().extend(learned);
    }
    Ok(())
}
