//! Decides if the service of a set was as promised (pure).
//!
//! * *No loss*: an acknowledged write is there at the end, unless a promoted node never received it.
//! * *No doubled write*: no write is there twice. (That a failed write is not there at all is a rule of `sessions`.)
//! * *No failed write*: no write failed, except one that the session's token forbade.
//! * *No unknown outcome*: no write ended with `OutcomeUnknown`.
//! * *No failed read*: no read without a token failed while a node was there that could serve it.
//! * *Nothing overdue*: no operation took longer than its limit.
//! * *Healthy again*: after the last fault, every node serves within a limit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Promises, Rule, Subject, Violation};
use crate::recorded::history::{Action, History, Key, Operation, Outcome, WriteId};

#[cfg(test)]
mod tests;

/// Time after an outage in which its node need not serve yet: `backoff.max`, a probe, and a login.
const RETURN: Duration = Duration::from_secs(2);

/// Returns the acknowledged writes that are missing at the end without an excuse.
pub(super) fn lost(history: &History) -> Vec<Violation> {
    let there: BTreeSet<_> = history.end.iter().map(|(_, write)| *write).collect();
    let is_excused = |write: WriteId, operation: &Operation| {
        let mut later = history.lossy_promotions.iter().filter(|promotion| promotion.at >= operation.began);
        later.any(|promotion| !promotion.had.contains(&write))
    };
    let lost = writes(history).filter(|(operation, write, _, outcome)| {
        *outcome == Outcome::Acknowledged && !there.contains(write) && !is_excused(*write, operation)
    });
    lost.map(|(operation, write, key, _)| {
        let took = operation.took();
        of(
            Rule::NoLoss,
            operation,
            Subject::Error(format!("write {write} of key {key}, which took {took:?}")),
        )
    })
    .collect()
}

/// Returns the writes that the end shows more than once, or of several keys.
pub(super) fn doubled(history: &History) -> Vec<Violation> {
    let mut counts: BTreeMap<WriteId, usize> = BTreeMap::new();
    for (_, write) in &history.end {
        *counts.entry(*write).or_default() += 1;
    }
    let doubled = writes(history).filter(|(_, write, ..)| counts.get(write).is_some_and(|count| *count > 1));
    doubled
        .map(|(operation, write, key, _)| of(Rule::NoDoubledWrite, operation, Subject::Write(key, write)))
        .collect()
}

/// Returns the operations that the set did not serve, or not in time.
pub(super) fn unavailable(history: &History, promises: &Promises) -> Vec<Violation> {
    let mut found = Vec::new();
    for operation in &history.operations {
        let limit = match &operation.action {
            Action::Read { .. } => promises.read_limit,
            Action::ReadFailed { error, with_token } => {
                if !with_token && let Some(node) = serving(history, operation) {
                    let error = format!("{node} could serve: {error}");
                    found.push(of(Rule::NoFailedRead, operation, Subject::Error(error)));
                }
                promises.read_limit
            }
            Action::Write { write, key, outcome, error, .. } => {
                let rule = match outcome {
                    Outcome::Unknown => Some(Rule::NoUnknownOutcome),
                    Outcome::Failed => Some(Rule::NoFailedWrite),
                    Outcome::Acknowledged | Outcome::Dropped | Outcome::Refused => None,
                };
                let text = || format!("write {write} of key {key}: {}", error.as_deref().unwrap_or_default());
                found.extend(rule.map(|rule| of(rule, operation, Subject::Error(text()))));
                promises.write_limit
            }
            Action::LossReported => continue,
        };
        if operation.took() > limit {
            let what = match &operation.action {
                Action::Read { .. } => "a read".to_owned(),
                Action::ReadFailed { error, .. } => error.clone(),
                Action::Write { outcome, .. } => format!("a write: {outcome:?}"),
                Action::LossReported => "a loss".to_owned(),
            };
            let text = format!("it took {:?}: {what}", operation.took());
            found.push(of(Rule::NothingOverdue, operation, Subject::Error(text)));
        }
    }
    if history.recovery.is_none_or(|recovery| recovery > promises.recovery_limit) {
        let subject = history.recovery.map_or(Subject::Error("it never did".to_owned()), Subject::Took);
        found.push(Violation { rule: Rule::HealthyAgain, session: None, began: Duration::MAX, subject });
    }
    found
}

/// Returns a node that had no outage while an operation ran.
fn serving<'h>(history: &'h History, operation: &Operation) -> Option<&'h String> {
    history.nodes.iter().find(|node| {
        history
            .outages
            .iter()
            .filter(|outage| outage.node == **node)
            .all(|outage| outage.until + RETURN < operation.began || outage.from > operation.ended)
    })
}

fn writes(history: &History) -> impl Iterator<Item = (&Operation, WriteId, Key, Outcome)> {
    history.operations.iter().filter_map(|operation| match operation.action {
        Action::Write { write, key, outcome, .. } => Some((operation, write, key, outcome)),
        _ => None,
    })
}

fn of(rule: Rule, operation: &Operation, subject: Subject) -> Violation {
    Violation { rule, session: Some(operation.session), began: operation.began, subject }
}
