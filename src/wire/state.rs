//! The state of a connection, as PostgreSQL's protocol shows it in its bytes.
//!
//! A message of the protocol has a type and a length, so its boundaries are known without parsing its body. Some
//! answers are parsed:
//!
//! * `ReadyForQuery`: the transaction status
//! * `ErrorResponse`: the SQLSTATE and the severity
//! * `CommandComplete`: if a COMMIT committed
//! * `NoticeResponse`: if a COMMIT did not wait for its standby
//! * `ParameterStatus`: if a session became writable, and if its server was promoted
//! * `Authentication…`: if a password is requested
//!
//! Together with the requests sent, they show if an answer is still pending.
//!
//! Source: PostgreSQL 15 documentation, chapter 55, "Frontend/Backend Protocol".

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::asks::Asks;
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

/// The state of one connection by its tap, shared with the connection's owner.
#[derive(Debug)]
pub(crate) struct WireState {
    /// The status of the last `ReadyForQuery`, or 0 before the first.
    ///
    /// `I`dle, in a `T`ransaction, or in a failed one (`E`).
    status: AtomicU8,
    /// Requests sent (`Sync`, `Query`), and requests answered (`ReadyForQuery`).
    requests_sent: AtomicU64,
    answered: AtomicU64,
    /// Number of the last request that did more than close a prepared statement.
    last_work: AtomicU64,
    /// `true` if any message but such a close was sent since the last request.
    working: AtomicBool,
    /// SQLSTATE of the last `ErrorResponse`, packed; 0 if there was none.
    ///
    /// The error that failed a transaction stays until the transaction ends, because errors of later statements are
    /// consequences.
    sqlstate: AtomicU64,
    /// `true` if the last error was a conflict, and only a ROLLBACK succeeded since.
    conflict: AtomicBool,
    /// `true` if an error's severity showed that the session ends.
    ending: AtomicBool,
    /// `true` if a COMMIT succeeded without its synchronous standby.
    unreplicated: AtomicBool,
    /// `true` if the last command that ended a transaction rolled it back.
    rolled_back: AtomicBool,
    /// Commands that ended a transaction, or rolled a savepoint back.
    transactions_ended: AtomicU64,
    /// `true` if the end of the connection reached a statement of the open transaction.
    hit: AtomicBool,
    /// `true` if transactions write by default, as servers from 14 on report.
    writes_by_default: AtomicBool,
    /// `true` if the server is a standby, as it last reported (14 or newer).
    standby: AtomicBool,
    /// The announced server process of the session.
    ///
    /// A pooler announces one that does not exist.
    backend: AtomicI32,
    /// The changes that were left on the session, packed.
    leftover: AtomicU8,
    /// `true` if the server answered that it has no TLS.
    without_tls: AtomicBool,
    /// `true` if the server requested a password.
    asked_for_password: AtomicBool,
    /// Set when the stream ends or fails, before the driver learns of it.
    ///
    /// At the latest, it is set when the stream is dropped.
    closed: AtomicBool,
    /// `true` if the session was abandoned, so its stream outlives the driver.
    given_up: AtomicBool,
    /// The stream of an abandoned session.
    remains: Mutex<Option<Remains>>,
    /// Set when the stream is gone.
    ///
    /// The server has ended the session, or will notice it.
    ended: AtomicBool,
    /// Wakes the tasks that wait until no answer is pending, or for the end.
    drained: Notify,
    /// Microseconds from `created` to the first unanswered request.
    asked: AtomicU64,
    /// Microseconds of the longest wait for an answer since the last read.
    ///
    /// It is 0 if there was no answer.
    longest_wait: AtomicU64,
    created: Instant,
    /// The WAL positions that are asked for.
    pub(super) asks: Asks,
    /// Statistics of the node, with its average latency.
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
            hit: AtomicBool::new(false),
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
            asks: Asks::default(),
            stats,
        }
    }

    /// Returns the time at which the connection was made.
    pub(crate) fn created(&self) -> Instant {
        self.created
    }

    /// Waits until no answer is pending, or the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub(crate) async fn drained(&self) {
        loop {
            let drained = self.drained.notified();
            if !self.has_pending() || self.is_closed() || self.is_ending() {
                return;
            }
            drained.await;
        }
    }

    /// Returns `true` if no answer is pending and no transaction is open.
    pub(crate) fn is_idle(&self) -> bool {
        self.status.load(Ordering::Acquire) == b'I' && !self.has_pending()
    }

    /// Returns the transaction status that the server last reported.
    pub(super) fn status(&self) -> u8 {
        self.status.load(Ordering::Acquire)
    }

    /// Returns the number of requests sent.
    pub(crate) fn requests_sent(&self) -> u64 {
        self.requests_sent.load(Ordering::Acquire)
    }

    /// Returns the number of requests that the server has answered.
    pub(super) fn requests_answered(&self) -> u64 {
        self.answered.load(Ordering::Acquire)
    }

    pub(super) fn stats(&self) -> &NodeStats {
        &self.stats
    }

    /// Returns `true` if a transaction is open, even a failed one.
    pub(crate) fn is_in_transaction(&self) -> bool {
        matches!(self.status.load(Ordering::Acquire), b'T' | b'E')
    }

    /// Returns the number of COMMITs and ROLLBACKs that the server has answered.
    pub(crate) fn transactions_ended(&self) -> u64 {
        self.transactions_ended.load(Ordering::Acquire)
    }

    /// Returns `true` if a statement of the open transaction has failed.
    pub(crate) fn is_failed(&self) -> bool {
        self.status.load(Ordering::Acquire) == b'E'
    }

    /// Records if the end of the connection reached a statement.
    pub(crate) fn set_hit(&self, hit: bool) {
        self.hit.store(hit, Ordering::Release);
    }

    /// Returns `true` if the end of the connection reached a statement, or may have.
    pub(crate) fn is_hit(&self) -> bool {
        self.hit.load(Ordering::Acquire) || self.has_pending()
    }

    /// Records that a question failed the open transaction.
    pub(super) fn fail_transaction(&self, code: Option<SqlState>) {
        self.sqlstate.store(code.map_or(0, SqlState::pack), Ordering::Release);
        self.status.store(b'E', Ordering::Release);
    }

    /// Returns `true` if the last COMMIT or ROLLBACK was answered with `ROLLBACK`.
    ///
    /// A COMMIT gets this answer, without an error, if a statement of the transaction had failed.
    pub(crate) fn rolled_back(&self) -> bool {
        self.rolled_back.load(Ordering::Acquire)
    }

    /// Returns `true` if the session's transactions write by default.
    ///
    /// The server reports it.
    ///
    /// A read session begins without, and changes only if a statement changed its settings.
    pub(crate) fn writes_by_default(&self) -> bool {
        self.writes_by_default.load(Ordering::Acquire)
    }

    /// Returns `true` if the server reported that it is a standby.
    pub(crate) fn is_standby(&self) -> bool {
        self.standby.load(Ordering::Acquire)
    }

    /// Returns the announced server process of the session; 0 before.
    pub(crate) fn backend(&self) -> i32 {
        self.backend.load(Ordering::Acquire)
    }

    /// Returns the clean-up that the session needs before its next user.
    pub(crate) fn leftover(&self) -> Leftover {
        Leftover::unpack(self.leftover.load(Ordering::Acquire))
    }

    /// Records that the session is in its initial state.
    pub(crate) fn forget_leftover(&self) {
        self.leftover.store(Leftover::None.pack(), Ordering::Release);
    }

    pub(super) fn leave(&self, leftover: Leftover) {
        self.leftover.fetch_max(leftover.pack(), Ordering::AcqRel);
    }

    /// Returns `true` if the server was asked for TLS and has none.
    pub(crate) fn is_without_tls(&self) -> bool {
        self.without_tls.load(Ordering::Acquire)
    }

    /// Returns `true` if the server requested a password.
    ///
    /// It does so in clear text, by MD5 or by SCRAM.
    pub(crate) fn is_asked_for_password(&self) -> bool {
        self.asked_for_password.load(Ordering::Acquire)
    }

    /// Returns `true` if an answer is pending that a caller waits for.
    ///
    /// The driver closes an uncached statement with a separate request, after the answer has arrived. No caller waits
    /// for that request, and it delays none.
    pub(crate) fn has_pending(&self) -> bool {
        self.last_work.load(Ordering::Acquire) > self.answered.load(Ordering::Acquire)
    }

    /// Returns the time since which an answer is pending, if one is.
    pub(crate) fn owed_for(&self) -> Option<Duration> {
        let asked = self.asked.load(Ordering::Relaxed);
        self.has_pending().then(|| Duration::from_micros(self.age_micros().saturating_sub(asked)))
    }

    /// Takes the longest time that an answer was pending since the last call.
    ///
    /// The time is zero without an answer.
    pub(crate) fn take_longest_wait(&self) -> Duration {
        Duration::from_micros(self.longest_wait.swap(0, Ordering::Relaxed))
    }

    /// Returns `true` if the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Returns `true` if the server announced the end of the session.
    ///
    /// It does so by an error of severity FATAL or PANIC.
    ///
    /// The stream itself may stay open a moment longer.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Takes the record that a COMMIT succeeded without its synchronous standby.
    pub(crate) fn take_unreplicated(&self) -> bool {
        self.unreplicated.load(Ordering::Acquire) && self.unreplicated.swap(false, Ordering::AcqRel)
    }

    /// Returns `true` if the last error was a conflict that still counts.
    ///
    /// Conflicts are serialization failures and deadlocks.
    ///
    /// It still counts after ROLLBACK and ROLLBACK TO SAVEPOINT, which end a transaction or a nested one. Any other
    /// successful command shows that the caller went on.
    pub(crate) fn has_conflict(&self) -> bool {
        self.conflict.load(Ordering::Acquire)
    }

    /// Returns a stream's outcome unchanged, and closes the connection if it failed.
    pub(super) fn closed_by<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        if outcome.is_err() {
            self.close();
        }
        outcome
    }

    /// Stops all further output.
    pub(crate) fn close(&self) {
        // First, so that a caller who sees the end also sees which positions never arrive.
        self.asks.close();
        self.closed.store(true, Ordering::Release);
        self.drained.notify_waiters();
    }

    /// Stops all output but the end of the session.
    ///
    /// Returns `false` if it was abandoned before.
    pub(super) fn give_up(&self) -> bool {
        let first = !self.given_up.swap(true, Ordering::AcqRel);
        self.close();
        first
    }

    /// Keeps the driver's stream if the session was abandoned, and drops it otherwise.
    pub(super) fn left<S: Stream>(&self, stream: S, between_messages: bool, received: Frames) {
        self.close();
        if self.given_up.load(Ordering::Acquire) {
            let remains = Remains::new(stream, between_messages, received);
            *self.remains.lock().unwrap_or_else(PoisonError::into_inner) = Some(remains);
        } else {
            drop(stream);
            self.end();
        }
    }

    /// Takes the stream of an abandoned session.
    pub(super) fn take_remains(&self) -> Option<Remains> {
        self.remains.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Records that the stream is gone.
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
    /// Nothing is lost if the future is dropped.
    pub(crate) async fn ended(&self) {
        loop {
            let ended = self.drained.notified();
            if self.is_ended() {
                return;
            }
            ended.await;
        }
    }

    /// Returns `true` if the server may be working.
    ///
    /// An answer is pending, or it got part of a request.
    pub(crate) fn is_at_work(&self) -> bool {
        self.has_pending() || self.working.load(Ordering::Relaxed)
    }

    /// Takes the SQLSTATE of the last error, which is then no longer there.
    pub(crate) fn take_sqlstate(&self) -> Option<SqlState> {
        self.conflict.store(false, Ordering::Release);
        SqlState::unpack(self.sqlstate.swap(0, Ordering::AcqRel))
    }

    /// Returns the SQLSTATE of the error that failed the transaction, or the last.
    pub(crate) fn sqlstate(&self) -> Option<SqlState> {
        SqlState::unpack(self.sqlstate.load(Ordering::Acquire))
    }

    /// Records a message of the client.
    ///
    /// Only the driver's task calls this, so no other code changes these numbers.
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
                let status = body.first().copied().unwrap_or(0);
                let before = self.status.swap(status, Ordering::AcqRel);
                // The first one ends the start-up and answers no request.
                if self.answered.load(Ordering::Acquire) == self.requests_sent.load(Ordering::Acquire) {
                    return;
                }
                let pending = self.has_pending();
                self.answered.fetch_add(1, Ordering::AcqRel);
                if self.asks.is_active() {
                    self.note_transaction_status(before, status);
                }
                if pending && !self.has_pending() {
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
                    let standby = value == b"on\0";
                    // It was promoted, so it may be the new primary. Its monitor's next probe may be far away.
                    if self.standby.swap(standby, Ordering::AcqRel) && !standby {
                        self.stats.wake_monitor();
                    }
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
            // The code is that of any warning or of a shutdown, and the text is translated, so the routine identifies
            // it.
            b'N' if field(body, b'R') == Some(b"SyncRepWaitForLSN") => {
                self.unreplicated.store(true, Ordering::Release);
            }
            _ => {}
        }
    }
}
