//! Asks the server for its WAL position, in the flight of a user's request.
//!
//! The tap adds the question to the bytes of a request, and removes the answer from the bytes that the driver reads.
//! So the driver and the user notice nothing, and no round trip is added. The question is one `FunctionCall` message: it
//! is neither parsed nor planned, so it costs the server some microseconds.
//!
//! * *Before* a request: what the request reads is at least as new as the answer, because its snapshot is taken later.
//!   This also holds for a transaction at REPEATABLE READ, because the question goes before its `BEGIN`.
//! * *After* a request: what the request read or wrote is at most as new as the answer.
//!
//! A question inside a transaction could abort it, so a request that begins or continues one is followed by none.
//!
//! Source: PostgreSQL 15 documentation, section 55.2.5, "Function Call".

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::WireState;
use super::frames::field;
use crate::lsn::{Lsn, PositionLog};

#[cfg(test)]
mod tests;

/// The positions that are asked for on one connection.
#[derive(Debug, Default)]
pub(super) struct Asks {
    queue: Mutex<Queue>,
    /// `true` if the tap has to look at the requests.
    active: AtomicBool,
    /// Questions without an answer.
    pending: AtomicUsize,
    /// The timeline that the server writes; 0 while it was not asked, or is a standby.
    timeline: AtomicU32,
    /// `true` if a transaction ended without a question behind it.
    missed: AtomicBool,
    /// `true` if a statement was executed since the last request.
    executed: AtomicBool,
    answered: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    questions: VecDeque<Question>,
    tracking: Option<Tracking>,
    /// `true` if the next request gets a question before it.
    before_next: bool,
    /// The answer to the last question before a request.
    before: Option<Answer>,
}

/// Where the positions of a connection are recorded.
#[derive(Debug, Clone)]
pub(crate) struct Tracking {
    pub(crate) log: Arc<PositionLog>,
    /// The timeline that a standby replays, as far as the set knows.
    pub(crate) timeline: u32,
    /// `true` if the set knows the node as the primary of that timeline.
    pub(crate) is_primary: bool,
}

/// The answer to a question.
#[derive(Debug, Clone, Copy)]
struct Answer {
    position: Lsn,
    /// `true` if the server replayed up to there, so the position is on the history that it followed as a standby.
    is_replayed: bool,
}

/// A question to the server, until it is answered.
#[derive(Debug)]
struct Question {
    /// The user's requests that were sent before it.
    after: u64,
    function: Function,
    /// `true` if it was asked before a request.
    before: bool,
    tracking: Option<Tracking>,
}

/// A function of the server, by its object identifier, which is the same in all versions since 10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    /// `pg_current_wal_insert_lsn()`, because `pg_current_wal_lsn()` is behind with `synchronous_commit = off`.
    InsertPosition,
    /// `pg_last_wal_replay_lsn()`.
    ReplayPosition,
    /// `pg_walfile_name('0/0')`, whose first eight digits are the timeline that the server writes.
    Timeline,
}

impl Question {
    /// Records that the position never arrives, so a token does not cover what is before it.
    fn fail(&self) {
        if let Some(tracking) = &self.tracking {
            tracking.log.note_gap(tracking.timeline);
        }
    }
}

impl Function {
    fn oid(self) -> u32 {
        match self {
            Self::InsertPosition => 2852,
            Self::ReplayPosition => 3821,
            Self::Timeline => 2851,
        }
    }

    /// Appends the message that calls the function, with binary values.
    fn call(self, out: &mut Vec<u8>) {
        const BINARY: [u8; 2] = [0, 1];
        const ONE: [u8; 2] = [0, 1];
        let mut body = [&self.oid().to_be_bytes()[..], &ONE, &BINARY].concat();
        if self == Self::Timeline {
            body.extend([&ONE[..], &8_u32.to_be_bytes(), &0_u64.to_be_bytes()].concat());
        } else {
            body.extend([0, 0]);
        }
        body.extend(BINARY);
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        out.push(b'F');
        out.extend(length.to_be_bytes());
        out.extend(body);
    }
}

/// A message of the server, for the tap to pass on or to remove.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// The driver gets it.
    Pass,
    /// It belongs to the answer to a question.
    Remove,
}

impl Asks {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No code under this lock panics half-way through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire) > 0
    }

    fn set_active(&self, queue: &Queue) {
        self.active.store(queue.tracking.is_some() || queue.before_next, Ordering::Release);
    }

    fn push(&self, queue: &mut Queue, question: Question, out: &mut Vec<u8>) {
        question.function.call(out);
        queue.questions.push_back(question);
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    /// Fails all questions, because the connection has ended.
    pub(super) fn close(&self) {
        if self.is_pending() {
            for question in &self.queue().questions {
                question.fail();
            }
        }
        self.pending.store(0, Ordering::Release);
        self.answered.notify_waiters();
    }
}

impl WireState {
    /// Returns `true` if the tap has to look at the requests.
    pub(super) fn is_asking(&self) -> bool {
        self.asks.is_active()
    }

    /// Returns `true` if the tap has to look at the answers.
    pub(super) fn has_questions(&self) -> bool {
        self.asks.is_pending()
    }

    /// Records the position behind each request from now on, until [`untrack`](Self::untrack).
    pub(crate) fn track(&self, tracking: Tracking) {
        let mut queue = self.asks.queue();
        queue.tracking = Some(tracking);
        self.asks.missed.store(false, Ordering::Release);
        self.asks.set_active(&queue);
    }

    /// Stops asking; answers that are under way are still recorded.
    pub(crate) fn untrack(&self) {
        if self.asks.is_active() {
            let mut queue = self.asks.queue();
            (queue.tracking, queue.before_next, queue.before) = (None, false, None);
            self.asks.set_active(&queue);
        }
    }

    /// Returns `true` if positions are recorded.
    pub(crate) fn is_tracked(&self) -> bool {
        self.asks.is_active() && self.asks.queue().tracking.is_some()
    }

    /// Asks for the position before the next request, if no transaction is open.
    pub(crate) fn ask_before_next(&self) {
        let mut queue = self.asks.queue();
        (queue.before_next, queue.before) = (true, None);
        self.asks.set_active(&queue);
    }

    /// Returns the answer to [`ask_before_next`](Self::ask_before_next), once it is there.
    pub(crate) fn position_before(&self) -> Option<Lsn> {
        self.asks.queue().before.map(|answer| answer.position)
    }

    /// Returns `true` if everything that was read since [`ask_before_next`](Self::ask_before_next) is as new as this.
    pub(crate) fn is_proven(&self, required: Lsn) -> bool {
        let queue = self.asks.queue();
        // The question goes with the first request, so without one nothing was read.
        // A server that was promoted meanwhile may be as far on a history of its own.
        let proves = |answer: Answer| answer.is_replayed && answer.position >= required;
        queue.before_next || queue.before.is_some_and(proves)
    }

    /// Returns `true` if a transaction ended without a question behind it.
    pub(crate) fn has_missed_position(&self) -> bool {
        self.asks.missed.load(Ordering::Acquire)
    }

    /// Waits until no question is without an answer, or the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub(crate) async fn positions_answered(&self) {
        loop {
            let answered = self.asks.answered.notified();
            if !self.asks.is_pending() || self.is_closed() {
                return;
            }
            answered.await;
        }
    }

    /// Appends the question that goes before a request; nothing was sent of the request yet.
    pub(super) fn ask_before(&self, out: &mut Vec<u8>) {
        let mut queue = self.asks.queue();
        if queue.before_next && self.is_idle() {
            queue.before_next = false;
            let question = Question {
                after: self.requests_sent(),
                function: self.position_function(),
                before: true,
                tracking: None,
            };
            self.asks.push(&mut queue, question, out);
            self.asks.set_active(&queue);
        }
    }

    /// Records a message of the client, and appends the question that goes behind it.
    pub(super) fn sent_and_ask(&self, kind: u8, body: &[u8], out: &mut Vec<u8>) {
        let status = if self.has_pending() { b'I' } else { self.status() };
        self.sent(kind);
        if kind == b'E' {
            self.asks.executed.store(true, Ordering::Relaxed);
        }
        if !matches!(kind, b'Q' | b'S') {
            return;
        }
        let executed = self.asks.executed.swap(false, Ordering::Relaxed) || kind == b'Q';
        let mut queue = self.asks.queue();
        let Some(tracking) = queue.tracking.clone() else { return };
        if !executed || !is_followed(kind, body, status) {
            return;
        }
        self.asks.missed.store(false, Ordering::Release);
        let after = self.requests_sent();
        let function = self.position_function();
        if function == Function::InsertPosition && self.asks.timeline.load(Ordering::Acquire) == 0 {
            let question = Question { after, function: Function::Timeline, before: false, tracking: None };
            self.asks.push(&mut queue, question, out);
        }
        let question = Question { after, function, before: false, tracking: Some(tracking) };
        self.asks.push(&mut queue, question, out);
    }

    fn position_function(&self) -> Function {
        if self.is_standby() { Function::ReplayPosition } else { Function::InsertPosition }
    }

    /// Returns `true` if the next message of the server may belong to an answer to a question.
    pub(super) fn is_answering(&self) -> bool {
        let answered = self.requests_answered();
        self.asks.queue().questions.front().is_some_and(|question| question.after <= answered)
    }

    /// Handles a message of the server while a question is to be answered.
    pub(super) fn answer(&self, kind: u8, body: &[u8]) -> Passage {
        match kind {
            b'V' => self.learn(body),
            b'E' => {
                let severity = field(body, b'V').or_else(|| field(body, b'S'));
                if matches!(severity, Some(b"FATAL" | b"PANIC")) {
                    return Passage::Pass;
                }
                self.on_error(field(body, b'C'));
            }
            b'Z' => {
                self.asks.queue().questions.pop_front();
                // The number is set to 0 when the connection ends.
                let pending =
                    self.asks.pending.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
                if pending != Ok(0) {
                    self.asks.answered.notify_waiters();
                }
            }
            _ => return Passage::Pass,
        }
        Passage::Remove
    }

    /// Takes the value that a function returned: its length, and its bytes.
    fn learn(&self, body: &[u8]) {
        let value = body.get(4..).unwrap_or_default();
        let mut queue = self.asks.queue();
        let Some(question) = queue.questions.front() else { return };
        if question.function == Function::Timeline {
            let hex = value.get(..8).and_then(|digits| std::str::from_utf8(digits).ok());
            let timeline = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or_default();
            self.asks.timeline.store(timeline, Ordering::Release);
            return;
        }
        let is_standby = self.is_standby();
        // A server that never replayed anything has no replay position.
        let Ok(bytes) = <[u8; 8]>::try_from(value) else { return };
        let position = Lsn::new(u64::from_be_bytes(bytes)).end_of_last_record();
        let is_replay = question.function == Function::ReplayPosition;
        if is_replay && !is_standby {
            // It was promoted in between, so it may have been further already.
            self.asks.missed.store(true, Ordering::Release);
        } else {
            let timeline = match &question.tracking {
                Some(tracking) if is_replay => tracking.timeline,
                _ => self.asks.timeline.load(Ordering::Acquire),
            };
            if let Some(tracking) = &question.tracking {
                tracking.log.record(timeline, position);
            }
        }
        let is_of_primary = question.tracking.as_ref().is_some_and(|tracking| tracking.is_primary);
        if question.before {
            queue.before = Some(Answer { position, is_replayed: is_replay });
        }
        drop(queue);
        // A position of a server that was promoted unseen is on a history that the set does not know yet.
        if is_replay || is_of_primary {
            self.stats().note_position(position);
        }
    }

    /// Handles an error of the server instead of a position.
    fn on_error(&self, sqlstate: Option<&[u8]>) {
        let queue = self.asks.queue();
        let Some(question) = queue.questions.front() else { return };
        match &question.tracking {
            // 42501, insufficient privilege: it will fail again.
            Some(tracking) if sqlstate == Some(b"42501") => tracking.log.refuse(),
            // A late cancel request, for example.
            _ => question.fail(),
        }
    }

    /// Records that the position of what was read or written is not known.
    pub(crate) fn note_gap(&self) {
        if let Some(tracking) = &self.asks.queue().tracking {
            tracking.log.note_gap(tracking.timeline);
        }
    }

    /// Records that a request was answered, with the transaction status before and after it.
    pub(super) fn note_transaction_status(&self, before: u8, after: u8) {
        let ended = matches!(before, b'T' | b'E') && after == b'I';
        if ended && self.is_tracked() {
            let answered = self.requests_answered();
            let is_followed = self.asks.queue().questions.iter().any(|question| question.after >= answered);
            if !is_followed {
                self.asks.missed.store(true, Ordering::Release);
            }
        }
    }
}

/// Returns `true` if a question may go behind a request.
///
/// `status` is the transaction status before the request.
fn is_followed(kind: u8, body: &[u8], status: u8) -> bool {
    if matches!(status, b'T' | b'E') {
        return kind == b'Q' && (starts_with(body, b"COMMIT") || starts_with(body, b"END"));
    }
    // The server reads nothing but data after `COPY … FROM STDIN`.
    let begins = [&b"BEGIN"[..], b"START TRANSACTION", b"COPY"];
    !(kind == b'Q' && begins.iter().any(|word| starts_with(body, word)))
}

fn starts_with(statement: &[u8], words: &[u8]) -> bool {
    let statement = statement.trim_ascii_start();
    statement.get(..words.len()).is_some_and(|start| start.eq_ignore_ascii_case(words))
}
