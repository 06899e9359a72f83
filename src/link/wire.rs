//! The tap on the byte stream: what PostgreSQL's protocol says about a connection.
//!
//! Messages of the protocol are framed by a type and a length, so their borders can be followed without
//! parsing what is inside. Some kinds of answer are looked into: `ReadyForQuery` carries the
//! transaction status, `ErrorResponse` the SQLSTATE and the severity, `CommandComplete` whether a COMMIT committed,
//! `NoticeResponse` whether a COMMIT did not wait for its standby, `ParameterStatus` whether a session became writable,
//! `Authentication…` whether a password is asked for. With the requests that were sent they say whether the server still owes something.
//!
//! Source: PostgreSQL 15 documentation, chapter 55, "Frontend/Backend Protocol".

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use self::frames::{Frames, TLS_ANSWER, field};
pub(super) use self::remains::Remains;
pub(crate) use self::state::Leftover;
pub(crate) use self::tap::Tap;
use crate::error::SqlState;
use crate::node::Vitals;

mod frames;
mod remains;
mod state;
mod tap;

/// The codes of the authentication requests that ask for a password.
const CLEARTEXT_PASSWORD: u32 = 3;
const MD5_PASSWORD: u32 = 5;
const SASL: u32 = 10;

/// What the tap of one connection has seen, shared with the connection's owner.
#[derive(Debug)]
pub(crate) struct Wire {
    /// `ReadyForQuery`'s status: `I`dle, in a `T`ransaction, in a failed one (`E`); 0 before the first.
    status: AtomicU8,
    /// Requests sent (`Sync`, `Query`), and how many of them `ReadyForQuery` has answered.
    asked_for: AtomicU64,
    answered: AtomicU64,
    /// The number of the last request that was more than the closing of a prepared statement.
    last_work: AtomicU64,
    /// Whether anything but such a closing was sent since the last request.
    working: AtomicBool,
    /// SQLSTATE of the last `ErrorResponse`, packed; 0 if there was none. The error that failed a transaction stays
    /// until the transaction ends: what the server answers to later statements of it is a consequence.
    sqlstate: AtomicU64,
    /// Whether the last error was a conflict with other transactions, and no command succeeded since but a ROLLBACK.
    conflict: AtomicBool,
    /// Whether the server said with an error's severity that the session ends.
    ending: AtomicBool,
    /// Whether a COMMIT was carried out without the standby that it should have waited for.
    unreplicated: AtomicBool,
    /// Whether the last command that ended a transaction rolled it back.
    rolled_back: AtomicBool,
    /// Whether transactions write by default, as the server (14 or newer) last reported it.
    writes_by_default: AtomicBool,
    /// Whether the server is a standby, as it last reported (14 or newer).
    standby: AtomicBool,
    /// The process that serves the session, as it was announced: a pooler announces one that does not exist.
    backend: AtomicI32,
    /// What was left on the session for its next user, packed.
    leftover: AtomicU8,
    /// Whether the server said that it has no TLS.
    without_tls: AtomicBool,
    /// Whether the server asked for a password.
    asked_for_password: AtomicBool,
    /// Set when the stream has ended or failed, before the driver hears of it, and at the latest when it is dropped.
    closed: AtomicBool,
    /// Whether the session was given up, so that its stream is needed once more when its driver drops it.
    given_up: AtomicBool,
    /// The stream of a session that was given up.
    remains: Mutex<Option<Remains>>,
    /// Set when the stream is gone: the server has ended the session, or was left to notice.
    ended: AtomicBool,
    /// Wakes those who wait for the server to owe nothing, or for the end.
    settled: Notify,
    /// When the first of the answers that are owed was asked for, in microseconds since `created`.
    asked: AtomicU64,
    /// The longest time that the server owed an answer since it was last asked for, in microseconds; 0 without an answer.
    longest_wait: AtomicU64,
    created: Instant,
    /// The node's, where the time that answers take is averaged.
    vitals: Arc<Vitals>,
}

impl Wire {
    pub(crate) fn new(vitals: Arc<Vitals>) -> Self {
        Self {
            status: AtomicU8::new(0),
            asked_for: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            last_work: AtomicU64::new(0),
            working: AtomicBool::new(false),
            sqlstate: AtomicU64::new(0),
            conflict: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            unreplicated: AtomicBool::new(false),
            rolled_back: AtomicBool::new(false),
            writes_by_default: AtomicBool::new(false),
            standby: AtomicBool::new(false),
            backend: AtomicI32::new(0),
            leftover: AtomicU8::new(Leftover::None.pack()),
            without_tls: AtomicBool::new(false),
            asked_for_password: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            remains: Mutex::new(None),
            ended: AtomicBool::new(false),
            settled: Notify::new(),
            asked: AtomicU64::new(0),
            longest_wait: AtomicU64::new(0),
            created: Instant::now(),
            vitals,
        }
    }

    /// Waits until the server owes no answer, or the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn settled(&self) {
        loop {
            let settled = self.settled.notified();
            if !self.owes() || self.is_closed() || self.is_ending() {
                return;
            }
            settled.await;
        }
    }

    /// Whether the server last said that no transaction is open, and owes no answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.status.load(Ordering::Acquire) == b'I' && !self.owes()
    }

    /// Whether a statement of the open transaction has failed.
    pub(crate) fn is_failed(&self) -> bool {
        self.status.load(Ordering::Acquire) == b'E'
    }

    /// Whether the server answered the last COMMIT or ROLLBACK with `ROLLBACK`.
    ///
    /// A COMMIT is answered so, and without an error, where a statement of the transaction had failed.
    pub(crate) fn rolled_back(&self) -> bool {
        self.rolled_back.load(Ordering::Acquire)
    }

    /// Whether the server reported that the session's transactions write by default.
    ///
    /// A read session begins otherwise, and stays so unless somebody changed its settings.
    pub(crate) fn writes_by_default(&self) -> bool {
        self.writes_by_default.load(Ordering::Acquire)
    }

    /// Returns `true` if the server reported that it is a standby.
    pub(crate) fn is_standby(&self) -> bool {
        self.standby.load(Ordering::Acquire)
    }

    /// Returns the process that was announced to serve the session; 0 before.
    pub(crate) fn backend(&self) -> i32 {
        self.backend.load(Ordering::Acquire)
    }

    /// What has to happen to the session before it has a next user.
    pub(crate) fn leftover(&self) -> Leftover {
        Leftover::unpack(self.leftover.load(Ordering::Acquire))
    }

    /// The session is as it was when it began.
    pub(crate) fn forget_leftover(&self) {
        self.leftover.store(Leftover::None.pack(), Ordering::Release);
    }

    fn leave(&self, leftover: Leftover) {
        self.leftover.fetch_max(leftover.pack(), Ordering::AcqRel);
    }

    /// Whether the server was asked for TLS and has none.
    pub(crate) fn is_without_tls(&self) -> bool {
        self.without_tls.load(Ordering::Acquire)
    }

    /// Whether the server asked for a password: in clear text, by MD5 or by SCRAM.
    pub(crate) fn is_asked_for_password(&self) -> bool {
        self.asked_for_password.load(Ordering::Acquire)
    }

    /// Whether the server owes an answer that somebody asked for.
    ///
    /// The driver closes a statement that is not cached with a request of its own, after the answer has come. Nobody
    /// waits for that, and it delays nobody.
    pub(crate) fn owes(&self) -> bool {
        self.last_work.load(Ordering::Acquire) > self.answered.load(Ordering::Acquire)
    }

    /// Returns for how long the server has owed an answer; `None` if it owes none.
    pub(crate) fn owed_for(&self) -> Option<Duration> {
        let asked = self.asked.load(Ordering::Relaxed);
        self.owes().then(|| Duration::from_micros(self.age_micros().saturating_sub(asked)))
    }

    /// Takes the longest time that the server owed an answer since this was last called; zero without an answer.
    pub(crate) fn take_longest_wait(&self) -> Duration {
        Duration::from_micros(self.longest_wait.swap(0, Ordering::Relaxed))
    }

    /// Whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Returns `true` if the server said that the session ends: with an error of severity FATAL or PANIC, whatever its code.
    ///
    /// The stream itself may live a moment longer.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Takes the note that a COMMIT was carried out here without the standby that it should have waited for.
    pub(crate) fn take_unreplicated(&self) -> bool {
        self.unreplicated.load(Ordering::Acquire) && self.unreplicated.swap(false, Ordering::AcqRel)
    }

    /// Returns `true` if the last error was a serialization failure or a deadlock, and its transaction did not get over it.
    ///
    /// It stays so through ROLLBACK and ROLLBACK TO SAVEPOINT, which end a transaction or a nested one. Any other
    /// command that succeeds shows that the caller went on.
    pub(crate) fn has_conflict(&self) -> bool {
        self.conflict.load(Ordering::Acquire)
    }

    /// Passes an outcome of the stream on, and closes the connection if it failed.
    fn closed_by<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        if outcome.is_err() {
            self.close();
        }
        outcome
    }

    /// Lets nothing out any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.settled.notify_waiters();
    }

    /// Lets nothing out any more but the end of the session. Returns `false` if it was given up before.
    pub(super) fn give_up(&self) -> bool {
        let first = !self.given_up.swap(true, Ordering::AcqRel);
        self.close();
        first
    }

    /// The stream has no driver any more: it is kept for the end of a session that was given up, and else dropped.
    fn left<S: remains::Stream>(&self, stream: S, sent: &Frames, received: Frames) {
        self.close();
        if self.given_up.load(Ordering::Acquire) {
            let remains = Remains::new(stream, sent, received);
            *self.remains.lock().unwrap_or_else(PoisonError::into_inner) = Some(remains);
        } else {
            drop(stream);
            self.end();
        }
    }

    /// Takes what is left of a session that was given up.
    pub(super) fn take_remains(&self) -> Option<Remains> {
        self.remains.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The stream is gone.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.close();
    }

    /// Whether the stream is gone.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Waits until the stream is gone.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn ended(&self) {
        loop {
            let ended = self.settled.notified();
            if self.is_ended() {
                return;
            }
            ended.await;
        }
    }

    /// Whether the server may be at work: it owes an answer, or got a part of what it would answer.
    pub(crate) fn is_at_work(&self) -> bool {
        self.owes() || self.working.load(Ordering::Relaxed)
    }

    /// Takes the SQLSTATE of the last error, so that it is not taken for a later one's.
    pub(crate) fn take_sqlstate(&self) -> Option<SqlState> {
        self.conflict.store(false, Ordering::Release);
        SqlState::unpack(self.sqlstate.swap(0, Ordering::AcqRel))
    }

    /// SQLSTATE of the last error, or of the one that failed the open transaction.
    pub(crate) fn sqlstate(&self) -> Option<SqlState> {
        SqlState::unpack(self.sqlstate.load(Ordering::Acquire))
    }

    /// Notes what the client sent: only its driver's task calls this, so nothing else changes these numbers.
    fn sent(&self, kind: u8) {
        if !matches!(kind, b'C' | b'S') {
            self.working.store(true, Ordering::Relaxed);
        }
        if matches!(kind, b'Q' | b'S') {
            let number = self.asked_for.fetch_add(1, Ordering::AcqRel) + 1;
            if self.working.swap(false, Ordering::Relaxed) {
                if !self.owes() {
                    self.asked.store(self.age_micros(), Ordering::Relaxed);
                }
                self.last_work.store(number, Ordering::Release);
            }
        }
    }

    fn age_micros(&self) -> u64 {
        u64::try_from(self.created.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn received(&self, kind: u8, body: &[u8]) {
        match kind {
            b'Z' => {
                self.status.store(body.first().copied().unwrap_or(0), Ordering::Release);
                // The first one ends the start-up and answers no request.
                if self.answered.load(Ordering::Acquire) == self.asked_for.load(Ordering::Acquire) {
                    return;
                }
                let owed = self.owes();
                self.answered.fetch_add(1, Ordering::AcqRel);
                if owed && !self.owes() {
                    let micros = self.age_micros().saturating_sub(self.asked.load(Ordering::Relaxed));
                    self.vitals.answers.fetch_add(1, Ordering::Relaxed);
                    self.vitals.latency.record(Duration::from_micros(micros));
                    self.longest_wait.fetch_max(micros.max(1), Ordering::Relaxed);
                    self.settled.notify_waiters();
                }
            }
            b'K' => {
                if let Some(backend) = body.get(..4).and_then(|pid| pid.try_into().ok()) {
                    self.backend.store(i32::from_be_bytes(backend), Ordering::Release);
                }
            }
            b'R' => {
                let request = body.get(..4).and_then(|code| code.try_into().ok()).map(u32::from_be_bytes);
                if matches!(request, Some(CLEARTEXT_PASSWORD | MD5_PASSWORD | SASL)) {
                    self.asked_for_password.store(true, Ordering::Release);
                }
            }
            TLS_ANSWER => self.without_tls.store(body == b"N", Ordering::Release),
            b'C' => {
                let rollback = body == b"ROLLBACK\0";
                if rollback || body == b"COMMIT\0" {
                    self.rolled_back.store(rollback, Ordering::Release);
                }
                if !rollback && self.has_conflict() {
                    self.conflict.store(false, Ordering::Release);
                }
                let leftover = Leftover::of_command(body);
                if leftover != Leftover::None {
                    self.leave(leftover);
                }
            }
            b'S' => {
                if let Some(value) = body.strip_prefix(b"default_transaction_read_only\0") {
                    self.writes_by_default.store(value != b"on\0", Ordering::Release);
                } else if let Some(value) = body.strip_prefix(b"in_hot_standby\0") {
                    self.standby.store(value == b"on\0", Ordering::Release);
                }
            }
            b'E' => {
                let severity = field(body, b'V').or_else(|| field(body, b'S'));
                let ending = matches!(severity, Some(b"FATAL" | b"PANIC"));
                if let Some(code) = field(body, b'C').and_then(|code| <[u8; 5]>::try_from(code).ok())
                    && (ending || !self.is_failed() || self.sqlstate().is_none())
                {
                    let code = SqlState::new(code);
                    self.sqlstate.store(code.pack(), Ordering::Release);
                    self.conflict.store(code.is_transient_conflict(), Ordering::Release);
                }
                if ending {
                    self.ending.store(true, Ordering::Release);
                    self.settled.notify_waiters();
                }
            }
            // The code is that of any warning or of a shutdown, and the text is translated: the routine tells.
            b'N' if field(body, b'R') == Some(b"SyncRepWaitForLSN") => {
                self.unreplicated.store(true, Ordering::Release);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstate_and_status_are_read() {
        let wire = Wire::new(Arc::default());
        wire.sent(b'E');
        wire.sent(b'S');
        assert!(wire.owes());
        wire.received(b'E', b"SERROR\0VERROR\0C40P01\0Mdeadlock detected\0\0");
        assert_eq!(wire.sqlstate(), Some(SqlState::new(*b"40P01")));
        wire.received(b'Z', b"E");
        assert!(!wire.owes() && !wire.is_idle());
        wire.sent(b'Q');
        wire.received(b'Z', b"I");
        assert!(wire.is_idle());
        assert_eq!(wire.take_sqlstate(), Some(SqlState::new(*b"40P01")));
        assert_eq!(wire.take_sqlstate(), None);
    }

    /// The code of the statement that failed a transaction was overwritten by the 25P02 of the next one in the pipeline.
    #[test]
    fn the_error_that_failed_a_transaction_stays_until_its_end() {
        let wire = Wire::new(Arc::default());
        let fail = |code: &[u8; 5], status: &[u8]| {
            wire.received(b'E', &[b"SERROR\0VERROR\0C", &code[..], b"\0Mwords\0\0"].concat());
            wire.received(b'Z', status);
        };
        wire.received(b'Z', b"T");
        fail(b"40001", b"E");
        fail(b"25P02", b"E");
        fail(b"42601", b"E");
        assert_eq!(wire.sqlstate(), Some(SqlState::SERIALIZATION_FAILURE));
        // It was rolled back to a savepoint: the next error has a cause of its own.
        wire.received(b'Z', b"T");
        fail(b"23505", b"E");
        assert_eq!(wire.sqlstate(), Some(SqlState::new(*b"23505")));
        wire.received(b'Z', b"I");
        fail(b"42P01", b"I");
        assert_eq!(wire.sqlstate(), Some(SqlState::new(*b"42P01")));
        assert!(!wire.is_ending());
    }

    /// A conflict in a nested transaction was forgotten with its savepoint, though the caller passed its error up.
    #[test]
    fn a_conflict_counts_until_a_command_other_than_a_rollback_succeeds() {
        let wire = Wire::new(Arc::default());
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
            let wire = Wire::new(Arc::default());
            wire.received(b'Z', b"E");
            wire.received(b'E', b"SERROR\0VERROR\0C23505\0Mearlier\0\0");
            wire.received(b'E', body);
            assert_eq!(wire.is_ending(), ends, "{}", String::from_utf8_lossy(body));
            assert_eq!(wire.sqlstate() != Some(SqlState::new(*b"23505")), ends, "it is what is said last");
        }
    }

    #[test]
    fn a_commit_that_did_not_wait_for_its_standby_is_told_by_the_routine() {
        let wire = Wire::new(Arc::default());
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
    fn the_closing_of_a_statement_is_owed_to_nobody() {
        let wire = Wire::new(Arc::default());
        wire.received(b'Z', b"I");
        for kind in [b'P', b'D', b'S', b'B', b'E', b'S'] {
            wire.sent(kind);
        }
        wire.received(b'Z', b"I");
        assert!(wire.owes(), "one of two answers came");
        wire.received(b'Z', b"I");
        assert!(wire.is_idle());
        wire.sent(b'C');
        wire.sent(b'S');
        assert!(wire.is_idle(), "the driver closes a statement");
        wire.sent(b'Q');
        wire.received(b'Z', b"I");
        assert!(wire.owes(), "that was the answer to the closing");
        wire.received(b'Z', b"I");
        assert!(wire.is_idle());
    }

    #[test]
    fn a_commit_that_rolled_back_is_told_from_one_that_committed() {
        let wire = Wire::new(Arc::default());
        for (tag, rolled_back) in [(&b"COMMIT\0"[..], false), (b"ROLLBACK\0", true), (b"INSERT 0 1\0", true)]
        {
            wire.received(b'C', tag);
            assert_eq!(wire.rolled_back(), rolled_back, "{tag:?}");
        }
    }

    #[test]
    fn a_session_that_was_made_writable_is_noticed() {
        let wire = Wire::new(Arc::default());
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
}
