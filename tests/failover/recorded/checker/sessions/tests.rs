//! Histories made by hand: each breaks one rule, or looks as if it did.

use super::super::Rule::{
    MonotonicReads, NoSilentLoss, NoWriteFromNowhere, ReadYourWrites, WritesFollowReads,
};
use super::*;
use crate::recorded::history::{Action, Operation, Outcome};

/// The writes of a key, as `(session, number)`.
type Shown<'s> = (Key, &'s [(u32, u32)]);

fn snapshot(shown: &[Shown<'_>]) -> Snapshot {
    let write = |(session, number): &(u32, u32)| WriteId { session: *session, number: *number };
    shown.iter().map(|(key, writes)| (*key, writes.iter().map(write).collect())).collect()
}

/// An operation that takes one second.
fn operation(session: u32, began: u64, action: Action) -> Operation {
    let (began, ended) = (Duration::from_secs(began), Duration::from_secs(began + 1));
    Operation { session, began, ended, action }
}

fn read(session: u32, began: u64, shown: &[Shown<'_>]) -> Operation {
    operation(
        session,
        began,
        Action::Read { seen: snapshot(shown), node: String::new(), by_replica: true, with_token: true },
    )
}

/// A write with the number of the second in which it began.
fn write(session: u32, began: u32, key: Key, outcome: Outcome) -> Operation {
    let write = WriteId { session, number: began };
    operation(session, began.into(), Action::Write { write, key, outcome, seen: None, error: None })
}

fn acknowledged(session: u32, began: u32, key: Key) -> Operation {
    write(session, began, key, Outcome::Acknowledged)
}

/// An acknowledged write whose transaction has read before.
fn transaction(session: u32, began: u32, key: Key, shown: &[Shown<'_>]) -> Operation {
    let (write, seen) = (WriteId { session, number: began }, Some(snapshot(shown)));
    let action = Action::Write { write, key, outcome: Outcome::Acknowledged, seen, error: None };
    operation(session, began.into(), action)
}

fn loss(session: u32, began: u64) -> Operation {
    operation(session, began, Action::LossReported)
}

/// The rules that a history breaks, each once.
fn broken(history: &[Operation], end: &[Shown<'_>]) -> Vec<Rule> {
    let mut rules: Vec<_> =
        violations(history, &snapshot(end)).iter().map(|violation| violation.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

const NOTHING: [Rule; 0] = [];

#[test]
fn a_read_that_lacks_its_sessions_write_is_a_violation() {
    let history = [acknowledged(1, 0, 7), read(1, 1, &[(7, &[])])];
    assert_eq!(broken(&history, &[(7, &[(1, 0)])]), [ReadYourWrites]);
    let found = violations(&history, &snapshot(&[(7, &[(1, 0)])]));
    assert_eq!(found[0].to_string(), "ReadYourWrites: session 1 at 1s: write 1#0 of key 7");
}

#[test]
fn a_read_that_goes_back_is_a_violation() {
    let history = [
        acknowledged(1, 0, 7),
        read(2, 1, &[(7, &[(1, 0)])]),
        read(2, 2, &[(7, &[])]),
        read(2, 3, &[(8, &[])]),
    ];
    assert_eq!(broken(&history, &[(7, &[(1, 0)])]), [MonotonicReads]);
}

#[test]
fn a_read_that_goes_back_behind_what_a_transaction_saw_is_a_violation() {
    let history = [acknowledged(1, 0, 7), transaction(2, 1, 8, &[(7, &[(1, 0)])]), read(2, 2, &[(7, &[])])];
    assert_eq!(broken(&history, &[(7, &[(1, 0)]), (8, &[(2, 1)])]), [MonotonicReads]);
}

/// It owes its session nothing, and tells the session nothing.
#[test]
fn a_read_without_the_token_may_be_older() {
    let action = |shown| Action::Read {
        seen: snapshot(shown),
        node: String::new(),
        by_replica: true,
        with_token: false,
    };
    let history = [
        acknowledged(1, 0, 7),
        operation(1, 1, action(&[(7, &[])])),
        operation(2, 2, action(&[(7, &[(1, 0)])])),
        read(2, 3, &[(7, &[])]),
    ];
    assert_eq!(broken(&history, &[(7, &[(1, 0)])]), NOTHING);
}

#[test]
fn a_transaction_that_lacks_what_its_session_read_or_wrote_is_a_violation() {
    let read_before =
        [acknowledged(1, 0, 7), read(2, 1, &[(7, &[(1, 0)])]), transaction(2, 2, 8, &[(7, &[])])];
    assert_eq!(broken(&read_before, &[(7, &[(1, 0)]), (8, &[(2, 2)])]), [WritesFollowReads]);
    let written_before = [acknowledged(2, 0, 7), transaction(2, 1, 8, &[(7, &[])])];
    assert_eq!(broken(&written_before, &[(7, &[(2, 0)]), (8, &[(2, 1)])]), [WritesFollowReads]);
}

/// The second session wrote on a primary that had lost what it had read. Only a third one notices.
#[test]
fn a_snapshot_with_a_write_but_not_what_its_session_had_read_is_a_violation() {
    let history = [
        acknowledged(1, 0, 7),
        read(2, 1, &[(7, &[(1, 0)])]),
        acknowledged(2, 2, 8),
        read(3, 3, &[(7, &[]), (8, &[(2, 2)])]),
        loss(1, 4),
        loss(2, 4),
    ];
    assert_eq!(broken(&history, &[(7, &[(1, 0)]), (8, &[(2, 2)])]), [WritesFollowReads]);
}

/// One session saw both, and a later one only what was written last.
#[test]
fn a_snapshot_that_goes_back_to_a_write_without_its_past_is_a_violation() {
    let all: [Shown<'_>; 2] = [(7, &[(1, 0)]), (8, &[(2, 2)])];
    let history = [
        acknowledged(1, 0, 7),
        read(2, 1, &[(7, &[(1, 0)])]),
        acknowledged(2, 2, 8),
        read(3, 3, &all),
        read(4, 4, &[(7, &[]), (8, &[])]),
        read(5, 5, &[(7, &[]), (8, &[(2, 2)])]),
    ];
    assert_eq!(broken(&history, &all), [WritesFollowReads]);
    assert_eq!(violations(&history, &snapshot(&all))[0].session, Some(5));
}

#[test]
fn an_end_with_a_write_but_not_what_its_session_had_read_is_a_violation() {
    let history = [acknowledged(1, 0, 7), read(2, 1, &[(7, &[(1, 0)])]), acknowledged(2, 2, 8), loss(1, 3)];
    let end: [Shown<'_>; 2] = [(7, &[]), (8, &[(2, 2)])];
    assert_eq!(broken(&history, &end), [WritesFollowReads]);
    assert_eq!(violations(&history, &snapshot(&end))[0].session, None);
}

#[test]
fn a_loss_that_was_not_reported_is_a_violation() {
    let history = [acknowledged(1, 0, 7), acknowledged(1, 1, 8)];
    assert_eq!(broken(&history, &[(7, &[]), (8, &[])]), [NoSilentLoss]);
    let reported_before = [loss(1, 0), acknowledged(1, 1, 7)];
    assert_eq!(broken(&reported_before, &[(7, &[])]), [NoSilentLoss]);
    let reported_to_another = [acknowledged(1, 0, 7), loss(2, 1)];
    assert_eq!(broken(&reported_to_another, &[(7, &[])]), [NoSilentLoss]);
}

#[test]
fn a_write_that_failed_and_is_there_is_a_violation() {
    let history = [write(1, 0, 7, Outcome::Failed), read(2, 1, &[(7, &[(1, 0)])])];
    assert_eq!(broken(&history, &[(7, &[(1, 0)])]), [NoWriteFromNowhere]);
    let another_key = [acknowledged(1, 0, 7), read(2, 1, &[(8, &[(1, 0)])])];
    assert_eq!(broken(&another_key, &[(7, &[(1, 0)])]), [NoWriteFromNowhere]);
}

#[test]
fn a_run_in_which_all_goes_well_has_no_violation() {
    let history = [
        acknowledged(1, 0, 7),
        read(1, 1, &[(7, &[(1, 0)]), (8, &[])]),
        transaction(1, 2, 8, &[(7, &[(1, 0)])]),
        read(2, 3, &[(7, &[(1, 0)]), (8, &[(1, 2)])]),
        acknowledged(2, 4, 7),
        read(1, 5, &[(7, &[(1, 0), (2, 4)])]),
    ];
    assert_eq!(broken(&history, &[(7, &[(1, 0), (2, 4)]), (8, &[(1, 2)])]), NOTHING);
}

#[test]
fn a_session_that_knew_of_nothing_newer_may_read_old_data() {
    let history = [acknowledged(1, 0, 7), read(2, 1, &[(7, &[])]), read(2, 2, &[(7, &[(1, 0)])])];
    assert_eq!(broken(&history, &[(7, &[(1, 0)])]), NOTHING);
}

#[test]
fn reads_of_other_keys_need_not_show_a_write() {
    let history = [acknowledged(1, 0, 7), read(1, 1, &[(8, &[])])];
    assert_eq!(broken(&history, &[(7, &[(1, 0)])]), NOTHING);
}

#[test]
fn a_write_of_unknown_outcome_may_be_there_or_not() {
    let unknown = |began| write(1, began, 7, Outcome::Unknown);
    let history = [unknown(0), read(1, 1, &[(7, &[])]), read(1, 2, &[(7, &[(1, 0)])]), unknown(3)];
    assert_eq!(broken(&history, &[(7, &[(1, 0)])]), NOTHING);
    assert_eq!(broken(&[unknown(0), read(1, 1, &[(7, &[])])], &[(7, &[])]), NOTHING);
    let shown_and_hidden = [unknown(0), read(1, 1, &[(7, &[(1, 0)])]), read(1, 2, &[(7, &[])])];
    assert_eq!(broken(&shown_and_hidden, &[(7, &[(1, 0)])]), [MonotonicReads]);
}

#[test]
fn a_session_starts_afresh_after_a_reported_loss() {
    let history = [
        acknowledged(1, 0, 7),
        read(2, 1, &[(7, &[(1, 0)])]),
        loss(1, 2),
        read(1, 3, &[(7, &[])]),
        loss(2, 2),
        transaction(2, 3, 8, &[(7, &[])]),
    ];
    assert_eq!(broken(&history, &[(7, &[]), (8, &[(2, 3)])]), NOTHING);
    let it_goes_back_again =
        [loss(1, 0), acknowledged(1, 1, 7), read(1, 2, &[(7, &[(1, 1)])]), read(1, 3, &[(7, &[])])];
    assert_eq!(broken(&it_goes_back_again, &[(7, &[(1, 1)])]), [ReadYourWrites]);
}

#[test]
fn a_reported_loss_may_turn_out_to_be_none() {
    let history = [acknowledged(1, 0, 7), loss(1, 1), read(1, 2, &[(7, &[(1, 0)])])];
    assert_eq!(broken(&history, &[(7, &[(1, 0)])]), NOTHING);
}

/// The read began before the write was acknowledged, so its snapshot may be older.
#[test]
fn concurrent_operations_need_not_see_each_other() {
    let during = Operation {
        began: Duration::from_millis(500),
        ended: Duration::from_millis(2500),
        ..read(1, 0, &[(7, &[])])
    };
    let history = [acknowledged(1, 0, 7), during, read(1, 2, &[(7, &[(1, 0)])])];
    assert_eq!(broken(&history, &[(7, &[(1, 0)])]), NOTHING);
    // The read ended after the loss was reported, but may have seen what was lost.
    let across_a_loss = Operation {
        began: Duration::from_millis(1500),
        ended: Duration::from_millis(3500),
        ..read(1, 0, &[(7, &[(1, 0)])])
    };
    let history = [acknowledged(1, 0, 7), across_a_loss, loss(1, 2), read(1, 4, &[(7, &[])])];
    assert_eq!(broken(&history, &[(7, &[])]), NOTHING);
}

#[test]
fn the_order_of_the_record_does_not_matter() {
    let history = [read(1, 1, &[(7, &[])]), acknowledged(1, 0, 7)];
    assert_eq!(broken(&history, &[(7, &[(1, 0)])]), [ReadYourWrites]);
}
