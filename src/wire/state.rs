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

use super::frames::{Frames, TLS_ANSWER, field};
use super::remains::{Remains, Stream};
use super::session_state::Leftover;
use crate::error::SqlState;
use crate::stats::NodeStats;

#[cfg(test)]
mod tests;

/// The codes of the authentication requests that ask for a password.
const CLEARTEXT_PASSWORD: u32 = 3;
const MD5_PASSWORD: u32 = 5;
const SASL: u32 = 10;

/// What the tap of one connection has seen, shared with the connection's owner.
#[derive(Debug)]
pub(crate) struct WireState {
    /// `ReadyForQuery`'s status: `I`dle, in a `T`ransaction, in a failed one (`E`); 0 before the first.
    status: AtomicU8,
    /// Requests sent (`Sync`, `Query`), and how many of them `ReadyForQuery` has answered.
    requests_sent: AtomicU64,
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
    /// How often a command ended a transaction, or rolled a savepoint back.
    transactions_ended: AtomicU64,
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
    drained: Notify,
    /// When the first of the answers that are owed was asked for, in microseconds since `created`.
    asked: AtomicU64,
    /// The longest time that the server owed an answer since it was last asked for, in microseconds; 0 without an answer.
    longest_wait: AtomicU64,
    created: Instant,
    /// The node's, where the time that answers take is averaged.
    stats: Arc<NodeStats>,
}

impl WireState {
    pub(crate) fn new(stats: Arc<NodeStats>) -> Self {
        Self {
            status: AtomicU8::new(0),
            requests_sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            last_work: AtomicU64::new(0),
            working: AtomicBool::new(false),
            sqlstate: AtomicU64::new(0),
            conflict: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            unreplicated: AtomicBool::new(false),
            rolled_back: AtomicBool::new(false),
            transactions_ended: AtomicU64::new(0),
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
            drained: Notify::new(),
            asked: AtomicU64::new(0),
            longest_wait: AtomicU64::new(0),
            created: Instant::now(),
            stats,
        }
    }

    /// Waits until the server owes no answer, or the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn drained(&self) {
        loop {
            let drained = self.drained.notified();
            if !self.has_pending() || self.is_closed() || self.is_ending() {
                return;
            }
            drained.await;
        }
    }

    /// Whether the server last said that no transaction is open, and owes no answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.status.load(Ordering::Acquire) == b'I' && !self.has_pending()
    }

    /// Returns `true` if the server last said that a transaction is open, a failed one included.
    pub(crate) fn is_in_transaction(&self) -> bool {
        matches!(self.status.load(Ordering::Acquire), b'T' | b'E')
    }

    /// Returns how often the server has answered a COMMIT or a ROLLBACK.
    pub(crate) fn transactions_ended(&self) -> u64 {
        self.transactions_ended.load(Ordering::Acquire)
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

    pub(super) fn leave(&self, leftover: Leftover) {
        self.leftover.fetch_max(leftover.pack(), Ordering::AcqRel);
    }

    /// Whether the server was asked for TLS and has none.
    pub(crate) fn is_without_tls(&self) -> bool {
        self.without_tls.load(Ordering::Acquire)
    }

    /// Returns `true` if the server asked for a password: in clear text, by MD5 or by SCRAM.
    pub(crate) fn is_asked_for_password(&self) -> bool {
        self.asked_for_password.load(Ordering::Acquire)
    }

    /// Whether the server owes an answer that somebody asked for.
    ///
    /// The driver closes a statement that is not cached with a request of its own, after the answer has come. Nobody
    /// waits for that, and it delays nobody.
    pub(crate) fn has_pending(&self) -> bool {
        self.last_work.load(Ordering::Acquire) > self.answered.load(Ordering::Acquire)
    }

    /// Returns for how long the server has owed an answer; `None` if it owes none.
    pub(crate) fn owed_for(&self) -> Option<Duration> {
        let asked = self.asked.load(Ordering::Relaxed);
        self.has_pending().then(|| Duration::from_micros(self.age_micros().saturating_sub(asked)))
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
    pub(super) fn closed_by<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        if outcome.is_err() {
            self.close();
        }
        outcome
    }

    /// Lets nothing out any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.drained.notify_waiters();
    }

    /// Lets nothing out any more but the end of the session. Returns `false` if it was given up before.
    pub(super) fn give_up(&self) -> bool {
        let first = !self.given_up.swap(true, Ordering::AcqRel);
        self.close();
        first
    }

    /// The stream has no driver any more: it is kept for the end of a session that was given up, and else dropped.
    pub(super) fn left<S: Stream>(&self, stream: S, sent: &Frames, received: Frames) {
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

    /// Returns `true` if the stream is gone.
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
            let ended = self.drained.notified();
            if self.is_ended() {
                return;
            }
            ended.await;
        }
    }

    /// Returns `true` if the server may be at work: it owes an answer, or got a part of what it would answer.
    pub(crate) fn is_at_work(&self) -> bool {
        self.has_pending() || self.working.load(Ordering::Relaxed)
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
    pub(super) fn sent(&self, kind: u8) {
        if !matches!(kind, b'C' | b'S') {
            self.working.store(true, Ordering::Relaxed);
        }
        if matches!(kind, b'Q' | b'S') {
            let number = self.requests_sent.fetch_add(1, Ordering::AcqRel) + 1;
            if self.working.swap(false, Ordering::Relaxed) {
                if !self.has_pending() {
                    self.asked.store(self.age_micros(), Ordering::Relaxed);
                }
                self.last_work.store(number, Ordering::Release);
            }
        }
    }

    fn age_micros(&self) -> u64 {
        u64::try_from(self.created.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub(super) fn received(&self, kind: u8, body: &[u8]) {
        match kind {
            b'Z' => {
                self.status.store(body.first().copied().unwrap_or(0), Ordering::Release);
                // The first one ends the start-up and answers no request.
                if self.answered.load(Ordering::Acquire) == self.requests_sent.load(Ordering::Acquire) {
                    return;
                }
                let owed = self.has_pending();
                self.answered.fetch_add(1, Ordering::AcqRel);
                if owed && !self.has_pending() {
                    let micros = self.age_micros().saturating_sub(self.asked.load(Ordering::Relaxed));
                    self.stats.answers.fetch_add(1, Ordering::Relaxed);
                    self.stats.latency.record(Duration::from_micros(micros));
                    self.longest_wait.fetch_max(micros.max(1), Ordering::Relaxed);
                    self.drained.notify_waiters();
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
                    self.transactions_ended.fetch_add(1, Ordering::AcqRel);
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
                    self.drained.notify_waiters();
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
