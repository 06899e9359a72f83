use futures_util::FutureExt;

use super::*;

#[test]
fn sqlstate_and_status_are_read() {
    let wire = WireState::new(Arc::default());
    wire.sent(b'E');
    wire.sent(b'S');
    assert!(wire.has_pending());
    wire.received(b'E', b"SERROR\0VERROR\0C40P01\0Mdeadlock detected\0\0");
    assert_eq!(wire.sqlstate(), Some(SqlState::new(*b"40P01")));
    wire.received(b'Z', b"E");
    assert!(!wire.has_pending() && !wire.is_idle());
    wire.sent(b'Q');
    wire.received(b'Z', b"I");
    assert!(wire.is_idle());
    assert_eq!(wire.take_sqlstate(), Some(SqlState::new(*b"40P01")));
    assert_eq!(wire.take_sqlstate(), None);
}

/// The code of the failing statement was overwritten by the 25P02 of the next one in the pipeline.
#[test]
fn the_error_that_failed_a_transaction_stays_until_its_end() {
    let wire = WireState::new(Arc::default());
    let fail = |code: &[u8; 5], status: &[u8]| {
        wire.received(b'E', &[b"SERROR\0VERROR\0C", &code[..], b"\0Mwords\0\0"].concat());
        wire.received(b'Z', status);
    };
    wire.received(b'Z', b"T");
    fail(b"40001", b"E");
    fail(b"25P02", b"E");
    fail(b"42601", b"E");
    assert_eq!(wire.sqlstate(), Some(SqlState::SERIALIZATION_FAILURE));
    // It was rolled back to a savepoint, so the next error has another cause.
    wire.received(b'Z', b"T");
    fail(b"23505", b"E");
    assert_eq!(wire.sqlstate(), Some(SqlState::new(*b"23505")));
    wire.received(b'Z', b"I");
    fail(b"42P01", b"I");
    assert_eq!(wire.sqlstate(), Some(SqlState::new(*b"42P01")));
    assert!(!wire.is_ending());
}

/// A conflict in a nested transaction was forgotten with its savepoint.
///
/// The caller had returned its error.
#[test]
fn a_conflict_counts_until_a_command_other_than_a_rollback_succeeds() {
    let wire = WireState::new(Arc::default());
    let deadlock = || wire.received(b'E', b"SERROR\0VERROR\0C40P01\0Mdeadlock detected\0\0");
    deadlock();
    wire.received(b'Z', b"E");
    wire.received(b'C', b"ROLLBACK\0");
    wire.received(b'Z', b"T");
    assert!(wire.has_conflict(), "the nested transaction ended by it");
    wire.received(b'C', b"INSERT 0 1\0");
    assert!(!wire.has_conflict(), "the outer one went on");
    deadlock();
    wire.received(b'Z', b"T");
    wire.received(b'E', b"SERROR\0VERROR\0C23505\0Mduplicate\0\0");
    assert!(!wire.has_conflict(), "that one has another cause");
    deadlock();
    wire.take_sqlstate();
    assert!(!wire.has_conflict(), "it was forgotten");
}

/// Only 57P01, 57P02 and 57P03 were known to end a session; 57P05, 57P04 and 25P03 do as well.
#[test]
fn a_fatal_error_ends_the_session_whatever_its_code_and_language() {
    for (body, ends) in [
        (&b"SFATAL\0VFATAL\0C57P05\0Midle\0\0"[..], true),
        (b"SFATALE\0VFATAL\0C25P03\0Minattivo\0\0", true),
        (b"SPANIC\0VPANIC\0CXX000\0Mdisk\0\0", true),
        (b"SFATAL\0C08P01\0Mof a pooler\0\0", true),
        (b"SERROR\0VERROR\0C57014\0MFATAL\0\0", false),
    ] {
        let wire = WireState::new(Arc::default());
        wire.received(b'Z', b"E");
        wire.received(b'E', b"SERROR\0VERROR\0C23505\0Mearlier\0\0");
        wire.received(b'E', body);
        assert_eq!(wire.is_ending(), ends, "{}", String::from_utf8_lossy(body));
        assert_eq!(wire.sqlstate() != Some(SqlState::new(*b"23505")), ends, "it is what is said last");
    }
}

#[test]
fn a_commit_that_did_not_wait_for_its_standby_is_told_by_the_routine() {
    let wire = WireState::new(Arc::default());
    wire.received(b'N', b"SWARNUNG\0VWARNING\0C01000\0Manderes\0Rexec_stmt_raise\0\0");
    assert!(!wire.take_unreplicated());
    wire.received(
        b'N',
        b"SWARNUNG\0VWARNING\0C01000\0Mabgebrochen\0Fsyncrep.c\0L285\0RSyncRepWaitForLSN\0\0",
    );
    assert!(wire.take_unreplicated());
    assert!(!wire.take_unreplicated(), "it is taken once");
}

#[test]
fn closing_a_statement_leaves_no_answer_pending() {
    let wire = WireState::new(Arc::default());
    wire.received(b'Z', b"I");
    for kind in [b'P', b'D', b'S', b'B', b'E', b'S'] {
        wire.sent(kind);
    }
    wire.received(b'Z', b"I");
    assert!(wire.has_pending(), "one of two answers came");
    wire.received(b'Z', b"I");
    assert!(wire.is_idle());
    wire.sent(b'C');
    wire.sent(b'S');
    assert!(wire.is_idle(), "the driver closes a statement");
    wire.sent(b'Q');
    wire.received(b'Z', b"I");
    assert!(wire.has_pending(), "that was the answer to the closing");
    wire.received(b'Z', b"I");
    assert!(wire.is_idle());
}

#[test]
fn a_commit_that_rolled_back_is_told_from_one_that_committed() {
    let wire = WireState::new(Arc::default());
    for (tag, rolled_back) in [(&b"COMMIT\0"[..], false), (b"ROLLBACK\0", true), (b"INSERT 0 1\0", true)] {
        wire.received(b'C', tag);
        assert_eq!(wire.rolled_back(), rolled_back, "{tag:?}");
    }
}

#[test]
fn a_session_that_was_made_writable_is_noticed() {
    let wire = WireState::new(Arc::default());
    for (report, writes) in [
        (&b"default_transaction_read_only\0on\0"[..], false),
        (b"default_transaction_read_only\0off\0", true),
        (b"TimeZone\0UTC\0", true),
        (b"default_transaction_read_only\0on\0", false),
    ] {
        wire.received(b'S', report);
        assert_eq!(wire.writes_by_default(), writes, "{report:?}");
    }
}

/// A promotion was noticed only by the next probe, although each answer of a read session shows it.
#[test]
fn a_promotion_that_a_session_reports_wakes_the_monitor_once() {
    let stats = Arc::new(NodeStats::default());
    let wire = WireState::new(Arc::clone(&stats));
    let woken = || stats.woken().now_or_never().is_some();
    wire.received(b'S', b"in_hot_standby\0off\0");
    assert!(!woken(), "it was a primary all the time");
    wire.received(b'S', b"in_hot_standby\0on\0");
    assert!(!woken());
    wire.received(b'S', b"in_hot_standby\0off\0");
    assert!(woken() && !stats.is_suspected());
    wire.received(b'S', b"in_hot_standby\0off\0");
    assert!(!woken());
}
