//! Asks the server for its WAL position, in the flight of a user's request.
//!
//! The tap adds the question to the bytes of a request, and removes the answer from the bytes that the driver reads.
//! So the driver and the user notice nothing, and no round trip is added.
//!
//! * *Before* a request: what the request reads is at least as new as the answer, because its snapshot is taken later.
//!   This also holds for a transaction at REPEATABLE READ, because the question goes before its `BEGIN`.
//! * *Behind* a request: what the request read or wrote is at most as new as the answer.
//!
//! A question has one of two forms:
//!
//! * A separate request, which is one `FunctionCall` message. It is neither parsed nor planned, but the server sends
//!   its answer by itself, so the client is woken once more.
//! * A prepared statement *within* the user's request, on a standby. All answers come at once. If it failed, so would
//!   the user's request, so it is used only after a separate request has succeeded in the session.
//!
//! A question inside a transaction could abort it, so a request that begins or continues one is followed by none. The
//! questions for a transaction that must be resolvable are an exception, with precautions: see `notes`.
//!
//! * `question`: the questions, their messages and the parts of the answers
//! * `answers`: the answers, which the tap removes
//! * `notes`: the id and the position of a transaction, in the flight of its statements
//! * `effect`: the requests of a transaction that a question may follow (pure)
//!
//! Source: PostgreSQL 15 documentation, sections 55.2.3, "Extended Query", and 55.2.5, "Function Call".

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::WireState;
use super::session_state::Leftover;
use crate::lsn::{Lsn, PositionLog};

mod answers;
mod effect;
mod notes;
mod question;
#[cfg(test)]
mod tests;

pub(super) use self::effect::{Effect, Effects};
use self::notes::Notes;
pub(crate) use self::notes::{Note, Noted};
use question::{Function, Place, Question, Statement, is_followed};

/// The positions that are asked for on one connection.
#[derive(Debug, Default)]
pub(super) struct Asks {
    queue: Mutex<Queue>,
    /// `true` if the tap has to read the requests.
    active: AtomicBool,
    /// Questions without an answer.
    pending: AtomicUsize,
    /// The timeline that the server writes; 0 while it was not asked, or is a standby.
    timeline: AtomicU32,
    /// `true` if a transaction ended without a question behind it.
    missed: AtomicBool,
    /// Number of statements executed since the last request.
    executed: AtomicU32,
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
    /// The answer to the first question, if that is the last statement of a request.
    trailing: Lsn,
    statement: Statement,
    notes: Notes,
}

/// The record of a connection's positions.
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
    /// `true` if the server replayed up to there.
    ///
    /// The position is then on the history that it followed as a standby.
    is_replayed: bool,
}

/// The tap's care for the next message of the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Care {
    /// No question comes next.
    #[default]
    None,
    /// The message is the user's, and is shown to [`WireState::answer`].
    Show,
    /// The message may have to be removed, so it is held back until it is complete.
    Hold,
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
        let is_active = queue.tracking.is_some() || queue.before_next || queue.notes.is_active();
        self.active.store(is_active, Ordering::Release);
    }

    fn push(&self, queue: &mut Queue, question: Question, out: &mut Vec<u8>) {
        if question.place.is_apart() || question.function.is_note() {
            question.function.append(question.place.is_apart(), out);
        } else {
            queue.statement.append(out);
        }
        queue.questions.push_back(question);
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    /// Removes the first question, which is answered or failed.
    fn pop(&self, queue: &mut Queue) {
        queue.questions.pop_front();
        let is_other = |next: &Question| next.place.is_apart() || next.function.is_note();
        if queue.statement == Statement::Sent && queue.questions.iter().all(is_other) {
            // An error came first, so the server skipped it.
            queue.statement = Statement::Allowed;
        }
        // The number is set to 0 when the connection ends.
        let pending = self.pending.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
        if pending != Ok(0) {
            self.answered.notify_waiters();
        }
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
    /// Returns `true` if the tap has to read the requests.
    pub(super) fn is_asking(&self) -> bool {
        self.asks.is_active()
    }

    /// Returns `true` if the tap has to read the answers.
    pub(super) fn has_questions(&self) -> bool {
        self.asks.is_pending()
    }

    /// Records the position behind each request, until [`untrack`](Self::untrack).
    pub(crate) fn track(&self, tracking: Tracking) {
        let mut queue = self.asks.queue();
        queue.tracking = Some(tracking);
        self.asks.missed.store(false, Ordering::Release);
        self.asks.set_active(&queue);
    }

    /// Stops asking; answers that are under way are still recorded.
    ///
    /// What was read in a transaction has no position until the transaction ends, so an open one leaves a gap.
    pub(crate) fn untrack(&self) {
        if self.asks.is_active() {
            let mut queue = self.asks.queue();
            if let Some(tracking) = queue.tracking.take()
                && matches!(self.status(), b'T' | b'E')
            {
                tracking.log.note_gap(tracking.timeline);
            }
            (queue.before_next, queue.before) = (false, None);
            queue.notes.end();
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

    /// Returns the answer to [`ask_before_next`](Self::ask_before_next), if it came.
    pub(crate) fn position_before(&self) -> Option<Lsn> {
        self.asks.queue().before.map(|answer| answer.position)
    }

    /// Returns `true` if everything that was read meanwhile is as new as this.
    ///
    /// The time begins with [`ask_before_next`](Self::ask_before_next).
    pub(crate) fn is_proven(&self, required: Lsn) -> bool {
        let queue = self.asks.queue();
        // The question goes with the first request, so without one nothing was read.
        // A server that was promoted meanwhile may be as far on another history.
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

    /// Appends the question that goes before a request, of which nothing was sent yet.
    ///
    /// `kind` is the kind of the request's first message.
    pub(super) fn ask_before(&self, kind: Option<u8>, out: &mut Vec<u8>) {
        let mut queue = self.asks.queue();
        self.prepare_notes(&mut queue, out);
        if queue.before_next && self.is_idle() {
            queue.before_next = false;
            let function = self.position_function();
            // Only a statement that is bound here has a new snapshot behind the question.
            let is_within = kind == Some(b'B') && self.may_ask_within(&queue, function);
            let place = if is_within { Place::Leading } else { Place::Before };
            let question = Question { after: self.requests_sent(), function, place, tracking: None };
            self.asks.push(&mut queue, question, out);
            self.asks.set_active(&queue);
        }
    }

    /// Records a message of the client, and appends the question that goes with it.
    ///
    /// The question goes `within` the request if it is put before this message, and `behind` it otherwise. There is no
    /// place before a message that was sent in part. `effect` is that of the request which the message ends.
    pub(super) fn sent_and_ask(
        &self,
        (kind, body, effect): (u8, &[u8], Effect),
        mut within: Option<&mut Vec<u8>>,
        behind: &mut Vec<u8>,
    ) {
        let status = if self.has_pending() { b'I' } else { self.status() };
        let before = self.requests_sent();
        self.sent(kind);
        if kind == b'E' {
            self.asks.executed.fetch_add(1, Ordering::Relaxed);
        }
        if !matches!(kind, b'Q' | b'S') {
            return;
        }
        let statements = self.asks.executed.swap(0, Ordering::Relaxed);
        if statements == 0 && kind != b'Q' {
            return;
        }
        let mut queue = self.asks.queue();
        let place = within.as_deref_mut().filter(|_| kind == b'S');
        self.note_request(&mut queue, (effect, before, statements), place, behind);
        let Some(tracking) = queue.tracking.clone() else { return };
        if !is_followed(kind, body, status) {
            return;
        }
        self.asks.missed.store(false, Ordering::Release);
        let function = self.position_function();
        let tracking = Some(tracking);
        if let Some(within) = within
            && kind == b'S'
            && self.may_ask_within(&queue, function)
        {
            let place = Place::Trailing { statements };
            self.asks.push(&mut queue, Question { after: before, function, place, tracking }, within);
            return;
        }
        let (after, place) = (self.requests_sent(), Place::Behind);
        if function == Function::InsertPosition && self.asks.timeline.load(Ordering::Acquire) == 0 {
            let question = Question { after, function: Function::Timeline, place, tracking: None };
            self.asks.push(&mut queue, question, behind);
        }
        self.asks.push(&mut queue, Question { after, function, place, tracking }, behind);
    }

    /// Returns `true` if a question can be a statement within the user's request.
    fn may_ask_within(&self, queue: &Queue, function: Function) -> bool {
        function == Function::ReplayPosition
            && queue.statement.is_usable()
            // The user may have removed all prepared statements.
            && self.leftover() < Leftover::Statements
    }

    fn position_function(&self) -> Function {
        if self.is_standby() { Function::ReplayPosition } else { Function::InsertPosition }
    }

    /// Returns the care for the next message of the server.
    pub(super) fn care(&self) -> Care {
        let answered = self.requests_answered();
        match self.asks.queue().questions.front() {
            Some(question) if question.after > answered => Care::None,
            Some(Question {
                place: Place::Trailing { statements: 1.. } | Place::Unconfirmed { .. }, ..
            }) => Care::Show,
            Some(_) => Care::Hold,
            None => Care::None,
        }
    }

    /// Records that the position of what was read or written is not known.
    pub(crate) fn note_gap(&self) {
        if let Some(tracking) = &self.asks.queue().tracking {
            tracking.log.note_gap(tracking.timeline);
        }
    }

    /// Records an answered request, with the transaction status around it.
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
