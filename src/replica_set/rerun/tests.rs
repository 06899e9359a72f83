use super::*;
use crate::error::InDoubt;
use crate::lsn::Lsn;

/// A run whose function returned an error while its connection was well.
const FAILED: RunSigns = RunSigns {
    stage: Stage::Function,
    intact: true,
    ended: false,
    hit: false,
    owed: false,
    severed: false,
    conflict: false,
    sqlstate: None,
};

/// A run whose statement waited for an answer when the connection ended.
const LOST: RunSigns = RunSigns { ended: true, hit: true, owed: true, ..FAILED };

fn said(code: &[u8; 5]) -> Option<SqlState> {
    Some(SqlState::new(*code))
}

fn commit(outcome: Outcome) -> RunSigns {
    RunSigns { stage: Stage::Commit { outcome, locally: false }, ..FAILED }
}

fn noted() -> Doubt {
    Doubt::Noted(InDoubt {
        system_identifier: 7,
        timeline: 1,
        transaction_id: 100,
        position: Lsn::new(500),
        recovered_to: None,
        node: "a:5432".into(),
        noted: Instant::now(),
    })
}

#[test]
fn a_run_without_effect_is_repeated_and_the_functions_own_error_is_not() {
    use Decision::{Again, Return};
    for (signs, expected) in [
        // The function's own error, on a connection that is well, and on one that ended without the function noticing.
        (FAILED, Return),
        (RunSigns { sqlstate: said(b"23505"), ..FAILED }, Return),
        (RunSigns { ended: true, ..FAILED }, Return),
        (RunSigns { ended: true, severed: true, ..FAILED }, Return),
        // A statement was hit by the end of the connection.
        (LOST, Again(Cause::Crashed)),
        (RunSigns { severed: true, ..LOST }, Again(Cause::Lost)),
        (RunSigns { owed: false, ..LOST }, Again(Cause::Lost)),
        (RunSigns { sqlstate: said(b"57P01"), ..LOST }, Again(Cause::Suspect)),
        (RunSigns { sqlstate: said(b"57P02"), ..LOST }, Again(Cause::Lost)),
        (RunSigns { sqlstate: said(b"57P03"), ..LOST }, Again(Cause::Lost)),
        (RunSigns { sqlstate: said(b"XX000"), ..LOST }, Again(Cause::Crashed)),
        // The function was idle for too long.
        (RunSigns { sqlstate: said(b"25P03"), ..LOST }, Return),
        (RunSigns { sqlstate: said(b"25P04"), ..LOST }, Return),
        // The function exchanged the connection, or leaked an inner transaction.
        (RunSigns { intact: false, ..LOST }, Return),
        // BEGIN
        (RunSigns { stage: Stage::Begin, ..FAILED }, Return),
        (RunSigns { stage: Stage::Begin, ..LOST }, Again(Cause::Lost)),
        (RunSigns { stage: Stage::Begin, hit: false, owed: false, ..LOST }, Again(Cause::Lost)),
        // A statement had failed although the function returned a value.
        (RunSigns { stage: Stage::Refused, ..FAILED }, Return),
        (RunSigns { stage: Stage::Refused, ..LOST }, Again(Cause::Crashed)),
        (RunSigns { conflict: true, ..FAILED }, Again(Cause::Conflict)),
        (RunSigns { stage: Stage::Refused, conflict: true, ..FAILED }, Again(Cause::Conflict)),
    ] {
        for exactly_once in [false, true] {
            assert_eq!(decide(&signs, false, exactly_once, &Doubt::NotNoted), expected, "{signs:?}");
        }
    }
}

#[test]
fn a_commit_is_repeated_only_if_it_certainly_had_no_effect() {
    use Decision::{Again, Resolve, Return};
    let locally = |outcome| RunSigns { stage: Stage::Commit { outcome, locally: true }, ..commit(outcome) };
    let lost = |signs: RunSigns| RunSigns { ended: true, hit: true, owed: true, ..signs };
    for (signs, doubt, plain, once) in [
        (commit(Outcome::Committed), noted(), Return, Return),
        (locally(Outcome::Committed), noted(), Return, Resolve),
        (lost(commit(Outcome::Unknown)), noted(), Return, Resolve),
        (lost(locally(Outcome::Unknown)), noted(), Return, Resolve),
        (lost(commit(Outcome::Unknown)), Doubt::NotNoted, Return, Return),
        // Nothing was written.
        (lost(commit(Outcome::Unknown)), Doubt::Nothing, Return, Again(Cause::Crashed)),
        (commit(Outcome::NotEnded), noted(), Return, Return),
        (commit(Outcome::RolledBack), noted(), Return, Return),
        (commit(Outcome::Rejected), noted(), Return, Return),
        (
            RunSigns { conflict: true, ..commit(Outcome::Rejected) },
            noted(),
            Again(Cause::Conflict),
            Again(Cause::Conflict),
        ),
        (
            RunSigns { ended: true, ..commit(Outcome::NotSent) },
            Doubt::NotNoted,
            Again(Cause::Lost),
            Again(Cause::Lost),
        ),
        // The function swallowed the error of a statement that ended the session.
        (lost(commit(Outcome::NotSent)), noted(), Again(Cause::Crashed), Again(Cause::Crashed)),
    ] {
        assert_eq!(decide(&signs, false, false, &doubt), plain, "{signs:?}");
        assert_eq!(decide(&signs, false, true, &doubt), once, "exactly once: {signs:?}");
    }
}

#[test]
fn a_read_only_primary_is_left_only_if_it_was_demoted() {
    let read_only = RunSigns { sqlstate: said(b"25006"), ..FAILED };
    for stage in [Stage::Function, Stage::Refused] {
        let signs = RunSigns { stage, ..read_only };
        assert_eq!(decide(&signs, true, false, &Doubt::NotNoted), Decision::Again(Cause::Lost));
        assert_eq!(decide(&signs, false, false, &Doubt::NotNoted), Decision::Return);
    }
    // The demotion says nothing about a COMMIT without an answer.
    let unknown = commit(Outcome::Unknown);
    assert_eq!(decide(&unknown, true, true, &noted()), Decision::Resolve);
    assert_eq!(decide(&unknown, true, false, &noted()), Decision::Return);
}

fn reruns(limit: Option<Duration>) -> (Reruns, Instant) {
    let backoff =
        Backoff::new(Duration::from_millis(10), Duration::from_millis(40)).expect("a valid schedule");
    let backoff = backoff.with_jitter(0.0).expect("a valid jitter");
    let now = Instant::now();
    (Reruns::new(2, &backoff, limit.map(|limit| now + limit), Duration::from_secs(1)), now)
}

#[test]
fn the_first_loss_starts_the_deadline_and_is_repeated_at_once() {
    let (mut reruns, now) = reruns(None);
    assert_eq!(reruns.limit(), None);
    assert_eq!(reruns.pause(Cause::Lost, now), Some(Duration::ZERO));
    assert_eq!(reruns.limit(), Some(now + Duration::from_secs(1)));
    let later = now + Duration::from_millis(500);
    for wait in [10, 20, 40, 40] {
        assert_eq!(reruns.pause(Cause::Lost, later), Some(Duration::from_millis(wait)));
    }
    assert_eq!(reruns.limit(), Some(now + Duration::from_secs(1)), "one deadline");
    assert_eq!(reruns.pause(Cause::Lost, now + Duration::from_millis(970)), None);
}

#[test]
fn conflicts_and_lost_sessions_have_their_own_numbers() {
    let (mut reruns, now) = reruns(None);
    assert!(reruns.pause(Cause::Conflict, now).is_some());
    assert!(reruns.pause(Cause::Suspect, now).is_some());
    assert!(reruns.pause(Cause::Conflict, now).is_some());
    assert_eq!(reruns.pause(Cause::Conflict, now), None, "`writes.retries` is 2");
    assert!(reruns.pause(Cause::Suspect, now).is_some());
    assert_eq!(reruns.pause(Cause::Suspect, now), None, "three sessions are lost");
    assert!(reruns.pause(Cause::Lost, now).is_some());
}

/// The sessions of a killed server ended one after the other, so a write that got three of them failed.
#[test]
fn sessions_that_were_open_at_the_first_loss_count_once() {
    let (mut reruns, old) = reruns(None);
    let now = old + Duration::from_secs(60);
    let at = |ms| now + Duration::from_millis(ms);
    assert_eq!(reruns.judge(Cause::Crashed, old), Cause::Crashed, "the first one");
    assert!(reruns.pause(Cause::Crashed, now).is_some());
    for ms in [1, 2, 3] {
        let cause = reruns.judge(Cause::Crashed, old);
        assert_eq!(cause, Cause::Lost);
        assert!(reruns.pause(cause, at(ms)).is_some());
    }
    // A session that is opened afterwards shows that the server was there again.
    assert_eq!(reruns.judge(Cause::Crashed, at(100)), Cause::Crashed);
    assert!(reruns.pause(Cause::Crashed, at(110)).is_some());
    assert_eq!(reruns.pause(Cause::Crashed, at(210)), None, "three sessions");
    // One that the server ended by name counts always.
    assert_eq!(reruns.judge(Cause::Suspect, old), Cause::Suspect);
}

#[test]
fn the_limit_of_the_call_ends_all_repeats() {
    let (mut reruns, now) = reruns(Some(Duration::from_millis(5)));
    assert_eq!(reruns.pause(Cause::Conflict, now), None, "the wait is longer than what is left");
    assert_eq!(reruns.pause(Cause::Lost, now), Some(Duration::ZERO));
    assert_eq!(reruns.pause(Cause::Lost, now), None);
    assert_eq!(reruns.pause(Cause::Suspect, now + Duration::from_millis(5)), None);
}
