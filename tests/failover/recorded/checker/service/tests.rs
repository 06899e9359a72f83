//! Histories made by hand: each breaks one rule, or looks as if it did.

use super::super::Rule::{
    HealthyAgain, NoDoubledWrite, NoFailedRead, NoFailedWrite, NoLoss, NoSilentLoss, NoUnknownOutcome,
    NoWriteFromNowhere, NothingOverdue,
};
use super::super::violations;
use super::*;
use crate::recorded::history::{Outage, Promotion};

const PROMISES: Promises = Promises {
    read_limit: Duration::from_secs(5),
    write_limit: Duration::from_secs(20),
    recovery_limit: Duration::from_secs(10),
};

const NOTHING: [Rule; 0] = [];

const fn write_id(number: u32) -> WriteId {
    WriteId { session: 1, number }
}

/// A write of session 1 to key 7, with the number of the second in which it began.
fn write(began: u32, outcome: Outcome) -> Operation {
    taking(1, began, Action::Write { write: write_id(began), key: 7, outcome, seen: None, error: None })
}

fn failed_read(began: u32, with_token: bool) -> Operation {
    taking(1, began, Action::ReadFailed { error: "no node".to_owned(), with_token })
}

fn taking(seconds: u64, began: u32, action: Action) -> Operation {
    let began = Duration::from_secs(began.into());
    Operation { session: 1, began, ended: began + Duration::from_secs(seconds), action }
}

/// A run of two nodes with the given writes at the end, which recovered at once.
fn history(operations: &[Operation], end: &[u32]) -> History {
    History {
        operations: operations.to_vec(),
        end: end.iter().map(|number| (7, write_id(*number))).collect(),
        nodes: vec!["a".to_owned(), "b".to_owned()],
        recovery: Some(Duration::ZERO),
        ..History::default()
    }
}

fn outage(node: &str, from: u64, until: u64) -> Outage {
    let (from, until) = (Duration::from_secs(from), Duration::from_secs(until));
    Outage { kind: "killed".to_owned(), node: node.to_owned(), from, until }
}

fn promotion(at: u64, had: &[u32]) -> Promotion {
    Promotion { at: Duration::from_secs(at), had: had.iter().map(|number| write_id(*number)).collect() }
}

/// The rules that a history breaks, each once.
fn broken(history: &History) -> Vec<Rule> {
    let found = violations(history, 8, Some(&PROMISES));
    let rules: BTreeSet<_> = found.into_iter().map(|violation| violation.rule).collect();
    rules.into_iter().collect()
}

#[test]
fn a_run_in_which_all_goes_well() {
    let all = [write(0, Outcome::Acknowledged), write(2, Outcome::Refused), write(4, Outcome::Dropped)];
    assert_eq!(broken(&history(&all, &[0])), NOTHING);
    assert_eq!(broken(&history(&all, &[0, 4])), NOTHING, "a dropped write may be there");
}

#[test]
fn an_acknowledged_write_that_is_missing() {
    let lost = history(&[write(0, Outcome::Acknowledged)], &[]);
    assert_eq!(broken(&lost), [NoSilentLoss, NoLoss]);
}

/// Without synchronous replication, what only the old primary had is lost, and must be reported to its session.
#[test]
fn a_missing_write_that_the_promoted_node_had_or_never_received() {
    let operations = [write(0, Outcome::Acknowledged), taking(1, 6, Action::LossReported)];
    let mut lost = history(&operations, &[]);
    lost.lossy_promotions = vec![promotion(5, &[])];
    assert_eq!(broken(&lost), NOTHING);
    lost.lossy_promotions = vec![promotion(5, &[0])];
    assert_eq!(broken(&lost), [NoLoss], "it was replicated to the promoted node");
    lost.lossy_promotions = vec![promotion(3, &[0]), promotion(5, &[])];
    assert_eq!(broken(&lost), NOTHING, "the second one lacked it");
    let mut later = history(&[write(6, Outcome::Acknowledged), taking(1, 8, Action::LossReported)], &[]);
    later.lossy_promotions = vec![promotion(5, &[])];
    assert_eq!(broken(&later), [NoLoss], "it was made after the promotion");
}

#[test]
fn a_write_that_is_there_twice() {
    for outcome in [Outcome::Acknowledged, Outcome::Unknown, Outcome::Dropped] {
        assert!(broken(&history(&[write(0, outcome)], &[0, 0])).contains(&NoDoubledWrite), "{outcome:?}");
    }
}

#[test]
fn a_write_that_was_reported_failed_and_is_there() {
    let found = broken(&history(&[write(0, Outcome::Failed)], &[0]));
    assert_eq!(found, [NoWriteFromNowhere, NoFailedWrite]);
    assert_eq!(broken(&history(&[write(0, Outcome::Refused)], &[0])), [NoWriteFromNowhere]);
}

#[test]
fn a_write_that_fails() {
    assert_eq!(broken(&history(&[write(0, Outcome::Failed)], &[])), [NoFailedWrite]);
}

#[test]
fn a_write_whose_outcome_stays_unknown() {
    assert_eq!(broken(&history(&[write(0, Outcome::Unknown)], &[])), [NoUnknownOutcome]);
}

#[test]
fn a_read_that_fails_although_a_node_could_serve() {
    let mut failed = history(&[failed_read(10, false)], &[]);
    assert_eq!(broken(&failed), [NoFailedRead]);
    failed.outages = vec![outage("a", 9, 12)];
    assert_eq!(broken(&failed), [NoFailedRead], "the other node could");
    failed.outages.push(outage("b", 0, 5));
    assert_eq!(broken(&failed), [NoFailedRead], "it was back long before");
    failed.outages.push(outage("b", 5, 9));
    assert_eq!(broken(&failed), NOTHING, "it was just back");
    // With a token, the nodes that serve may not have come as far.
    assert_eq!(broken(&history(&[failed_read(10, true)], &[])), NOTHING);
}

#[test]
fn an_operation_that_outlasts_its_limit() {
    let read = |seconds| {
        let action =
            Action::Read { seen: BTreeMap::new(), node: String::new(), by_replica: true, with_token: true };
        taking(seconds, 0, action)
    };
    assert_eq!(broken(&history(&[read(5)], &[])), NOTHING);
    assert_eq!(broken(&history(&[read(6)], &[])), [NothingOverdue]);
    let write = |seconds| {
        let action =
            Action::Write { write: write_id(0), key: 7, outcome: Outcome::Dropped, seen: None, error: None };
        taking(seconds, 0, action)
    };
    assert_eq!(broken(&history(&[write(20)], &[])), NOTHING);
    assert_eq!(broken(&history(&[write(21)], &[])), [NothingOverdue]);
}

#[test]
fn a_set_that_does_not_recover() {
    let mut slow = history(&[], &[]);
    slow.recovery = Some(Duration::from_secs(11));
    assert_eq!(broken(&slow), [HealthyAgain]);
    slow.recovery = None;
    assert_eq!(broken(&slow), [HealthyAgain]);
}
