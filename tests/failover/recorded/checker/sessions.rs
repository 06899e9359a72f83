//! Decides if a history keeps the guarantees that a session gives (pure).
//!
//! A write adds its identity to the set of its key, and removes nothing. So a read shows exactly which writes are in the
//! history of its node, and each guarantee is an inclusion of sets:
//!
//! * *Read your writes*: a read shows the acknowledged writes that its session made before.
//! * *Monotonic reads*: a read shows what earlier reads of its session showed.
//! * *Writes follow reads*: a write comes after what its session knew. The transaction that writes sees all of it, and
//!   no snapshot shows a write without what its session knew before it.
//! * *No silent loss*: an acknowledged write that is missing at the end was reported as lost to its session.
//! * *No write from nowhere*: no snapshot shows a write that failed, or that was never made.
//!
//! Monotonic writes follow from the third one, because a session knows its own writes.
//!
//! A session knows what its operations showed that ended before the next one began, so it may run several at once. After
//! a reported loss, it only knows what operations showed that began later.
//!
//! Sources: D. B. Terry et al., "Session Guarantees for Weakly Consistent Replicated Data", PDIS 1994. The sets that
//! only grow, which make an anomaly visible: K. Kingsbury and P. Alvaro, "Elle", VLDB 2020.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use self::dependencies::{Dependencies, Snapshots};
use super::{Rule, Subject, Violation};
use crate::recorded::history::{Action, Key, Operation, Outcome, Snapshot, WriteId};

mod dependencies;
#[cfg(test)]
mod tests;

/// Returns what a history violates; `end` is the state of the primary after all operations.
pub(super) fn violations(history: &[Operation], end: &Snapshot) -> Vec<Violation> {
    let mut by_session: BTreeMap<u32, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        by_session.entry(operation.session).or_default().push(operation);
    }
    let (mut found, mut dependencies) = (Vec::new(), Dependencies::default());
    for (session, operations) in &mut by_session {
        operations.sort_by_key(|operation| operation.began);
        check_session(*session, operations, &mut dependencies, &mut found);
        check_losses(*session, operations, end, &mut found);
    }
    let mut in_order: Vec<_> = history.iter().collect();
    in_order.sort_by_key(|operation| operation.began);
    let snapshots =
        in_order.into_iter().filter_map(|operation| Some((Some(operation), operation.action.seen()?)));
    let (made, mut shown) = (made(history), Snapshots::new(dependencies));
    for (operation, seen) in snapshots.chain([(None, end)]) {
        let violation = |rule| {
            move |(key, write)| Violation {
                rule,
                session: operation.map(|operation| operation.session),
                began: operation.map_or(Duration::MAX, |operation| operation.began),
                subject: Subject::Write(key, write),
            }
        };
        let from_nowhere = shown.show(seen).into_iter().filter(|(key, write)| made.get(write) != Some(key));
        found.extend(from_nowhere.map(violation(Rule::NoWriteFromNowhere)));
        found.extend(shown.missing_from(seen).into_iter().map(violation(Rule::WritesFollowReads)));
    }
    found
}

/// Returns the writes that a snapshot may show, with their keys.
fn made(history: &[Operation]) -> HashMap<WriteId, Key> {
    let made = |operation: &Operation| match operation.action {
        Action::Write { outcome: Outcome::Failed | Outcome::Refused, .. } => None,
        Action::Write { write, key, .. } => Some((write, key)),
        _ => None,
    };
    history.iter().filter_map(made).collect()
}

/// Checks the snapshots of a session against what it knew before.
fn check_session(
    session: u32,
    operations: &[&Operation],
    dependencies: &mut Dependencies,
    found: &mut Vec<Violation>,
) {
    let mut ended = operations.to_vec();
    ended.sort_by_key(|operation| operation.ended);
    let mut ended = ended.into_iter().peekable();
    let mut knowledge = Knowledge { session, ..Knowledge::default() };
    for operation in operations {
        while let Some(earlier) = ended.next_if(|earlier| earlier.ended <= operation.began) {
            knowledge.add(earlier, dependencies);
        }
        if let Action::Write { write, .. } = operation.action {
            dependencies.record_write(write, session, knowledge.epoch);
        }
        let Some(seen) = in_session(&operation.action) else { continue };
        for (key, write) in knowledge.missing_from(seen) {
            let rule = match operation.action {
                Action::Write { .. } => Rule::WritesFollowReads,
                _ if knowledge.acknowledged.contains(&write) => Rule::ReadYourWrites,
                _ => Rule::MonotonicReads,
            };
            let subject = Subject::Write(key, write);
            found.push(Violation { rule, session: Some(session), began: operation.began, subject });
        }
    }
}

/// Returns the snapshot of an operation that a session's token covers.
fn in_session(action: &Action) -> Option<&Snapshot> {
    action.seen().filter(|_| !matches!(action, Action::Read { with_token: false, .. }))
}

/// The knowledge of a session at one time.
#[derive(Default)]
struct Knowledge {
    session: u32,
    /// The number of losses that were reported before.
    epoch: u32,
    /// Everything that began earlier was forgotten at the last reported loss.
    since: Duration,
    known: Snapshot,
    /// The session's own writes among them.
    acknowledged: BTreeSet<WriteId>,
}

impl Knowledge {
    fn add(&mut self, operation: &Operation, dependencies: &mut Dependencies) {
        if let Action::LossReported = operation.action {
            *self = Self {
                session: self.session,
                epoch: self.epoch + 1,
                since: operation.ended,
                ..Self::default()
            };
            return;
        }
        if operation.began < self.since {
            return;
        }
        let mut new = Vec::new();
        for (key, writes) in in_session(&operation.action).into_iter().flatten() {
            let known = self.known.entry(*key).or_default();
            new.extend(writes.difference(known).map(|write| (*key, *write)));
        }
        if let Action::Write { write, key, outcome: Outcome::Acknowledged, .. } = operation.action {
            self.acknowledged.insert(write);
            new.push((key, write));
        }
        for (key, write) in new {
            if self.known.entry(key).or_default().insert(write) {
                dependencies.record_known(self.session, self.epoch, key, write);
            }
        }
    }

    /// Returns what a snapshot lacks.
    fn missing_from(&self, seen: &Snapshot) -> Vec<(Key, WriteId)> {
        let missing = |(key, writes): (&Key, &BTreeSet<WriteId>)| -> Vec<_> {
            let missing = self.known.get(key).map(|known| known.difference(writes));
            missing.into_iter().flatten().map(|write| (*key, *write)).collect()
        };
        seen.iter().flat_map(missing).collect()
    }
}

/// Checks that each lost write was reported to its session.
fn check_losses(session: u32, operations: &[&Operation], end: &Snapshot, found: &mut Vec<Violation>) {
    for operation in operations {
        let Action::Write { write, key, outcome: Outcome::Acknowledged, .. } = operation.action else {
            continue;
        };
        let is_there = end.get(&key).is_some_and(|writes| writes.contains(&write));
        let is_report = |later: &&Operation| {
            matches!(later.action, Action::LossReported) && later.ended >= operation.ended
        };
        if !is_there && !operations.iter().copied().any(|later| is_report(&later)) {
            let (rule, began, subject) = (Rule::NoSilentLoss, operation.began, Subject::Write(key, write));
            found.push(Violation { rule, session: Some(session), began, subject });
        }
    }
}
