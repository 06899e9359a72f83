//! Notes a transaction's id and position in the flight of its statements.
//!
//! A COMMIT without an answer is resolved with the transaction's id, and with a position behind the transaction's first
//! record in the log. The question for both is a prepared statement at the end of the user's request, so its answer
//! comes with the user's and costs no round trip. It is asked behind every request that may write, because only a
//! position behind the last one is certainly behind the first record.
//!
//! An error of the question would abort the transaction. So before the first `BEGIN` of a session, in its flight, a
//! separate request prepares the question and executes it once. That proves that the role may ask. The same request
//! asks for what stays the same as long as the session lives.

use tokio::time::Instant;

use super::effect::Effect;
use super::question::{Function, Place, Question, columns};
use super::{Passage, Queue};
use crate::SqlState;
use crate::lsn::Lsn;
use crate::wire::WireState;
use crate::wire::frames::field;
use crate::wire::session_state::Leftover;

/// The notes on the transactions of one session.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// The transaction that is noted, if any.
    open: Option<Open>,
    origin: Known,
}

/// The notes on the open transaction.
#[derive(Debug)]
struct Open {
    began: Instant,
    /// Number of the last request that may have written.
    last: u64,
    /// Number of the request behind which the last answer was given, and that answer.
    noted: Option<(u64, Answer)>,
}

/// The answer to the question for a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    /// `None` if the transaction has written nothing.
    transaction_id: Option<u64>,
    position: Lsn,
}

/// The state of what is asked once in a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Known {
    #[default]
    Unasked,
    Asked,
    /// The server rejected the question, or gave no answer.
    Refused,
    Answered(Origin),
}

/// The history that a session writes, the same as long as the session lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) system_identifier: u64,
    pub(crate) timeline: u32,
    /// End of the server's last recovery, if it recovered when it started.
    pub(crate) recovered_to: Option<Lsn>,
}

/// The note on an open transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) origin: Origin,
    pub(crate) transaction_id: u64,
    pub(crate) position: Lsn,
    /// Time at which the transaction began.
    pub(crate) began: Instant,
}

/// The note on an open transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noted {
    /// The transaction has written nothing.
    Nothing,
    /// The transaction has written.
    Written(Note),
    /// No answer covers all of the transaction's requests.
    Missed,
}

impl Notes {
    pub(super) fn is_active(&self) -> bool {
        self.open.is_some()
    }

    pub(super) fn end(&mut self) {
        self.open = None;
    }

    fn noted(&self) -> Noted {
        let Some(open) = &self.open else { return Noted::Missed };
        if open.last == 0 {
            return Noted::Nothing;
        }
        match (open.noted, self.origin) {
            (Some((request, Answer { transaction_id: None, .. })), _) if request >= open.last => {
                Noted::Nothing
            }
            (
                Some((request, Answer { transaction_id: Some(transaction_id), position })),
                Known::Answered(origin),
            ) if request >= open.last => {
                Noted::Written(Note { origin, transaction_id, position, began: open.began })
            }
            _ => Noted::Missed,
        }
    }
}

impl Answer {
    fn parse(row: &[u8]) -> Option<Self> {
        let [id, position] = columns(row)?.try_into().ok()?;
        let transaction_id = match id {
            Some(id) => Some(text(id)?.parse().ok()?),
            None => None,
        };
        Some(Self { transaction_id, position: text(position?)?.parse().ok()? })
    }
}

impl Origin {
    fn parse(row: &[u8]) -> Option<Self> {
        let [system_identifier, timeline, recovered_to] = columns(row)?.try_into().ok()?;
        // The server's type is signed, and the identifier is not.
        let system_identifier = text(system_identifier?)?.parse::<i64>().ok()?.cast_unsigned();
        let timeline = u32::from_str_radix(text(timeline?)?, 16).ok()?;
        let recovered_to = match recovered_to {
            Some(position) => Some(text(position)?.parse().ok()?),
            None => None,
        };
        Some(Self { system_identifier, timeline, recovered_to })
    }
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

impl WireState {
    /// Notes the next transaction, until [`end_notes`](Self::end_notes).
    pub(crate) fn begin_notes(&self) {
        let mut queue = self.asks.queue();
        queue.notes.open = Some(Open { began: Instant::now(), last: 0, noted: None });
        self.asks.set_active(&queue);
    }

    /// Stops asking for the transaction.
    pub(crate) fn end_notes(&self) {
        if self.asks.is_active() {
            let mut queue = self.asks.queue();
            queue.notes.end();
            self.asks.set_active(&queue);
        }
    }

    /// Returns what is noted on the open transaction, once all answers are there.
    pub(crate) fn noted(&self) -> Noted {
        self.asks.queue().notes.noted()
    }

    /// Appends the request that prepares the question, before the first `BEGIN`.
    pub(super) fn prepare_notes(&self, queue: &mut Queue, out: &mut Vec<u8>) {
        if queue.notes.is_active()
            && queue.notes.origin == Known::Unasked
            && self.is_idle()
            && !self.is_standby()
            && self.leftover() < Leftover::Statements
        {
            queue.notes.origin = Known::Asked;
            let (after, place) = (self.requests_sent(), Place::Before);
            self.asks.push(queue, Question { after, function: Function::Origin, place, tracking: None }, out);
        }
    }

    /// Records a request of the transaction, and appends its question.
    ///
    /// `before` is the number of requests before it, which executes this many `statements`.
    pub(super) fn note_request(
        &self,
        queue: &mut Queue,
        (effect, before, statements): (Effect, u64, u32),
        within: Option<&mut Vec<u8>>,
        behind: &mut Vec<u8>,
    ) {
        // The user may have removed the prepared statement, or changed to a role that may not ask.
        let may_ask = matches!(queue.notes.origin, Known::Answered(_)) && self.leftover() == Leftover::None;
        let Some(open) = &mut queue.notes.open else { return };
        if effect == Effect::None {
            return;
        }
        open.last = before + 1;
        if effect == Effect::Other || !may_ask {
            return;
        }
        let function = Function::Note;
        let (after, place, out) = match within {
            Some(within) => (before, Place::Trailing { statements }, within),
            None => (before + 1, Place::Behind, behind),
        };
        self.asks.push(queue, Question { after, function, place, tracking: None }, out);
    }

    /// Handles a message that may answer a question sent as a separate request.
    pub(super) fn answer_note_apart(&self, queue: &mut Queue, kind: u8, body: &[u8]) -> Passage {
        let Some((function, after)) = queue.questions.front().map(|next| (next.function, next.after)) else {
            return Passage::Pass;
        };
        match (kind, function) {
            (b'D', Function::Origin) => {
                // The first row is that of the question for the transaction, which is proven by it.
                if let Some(origin) = Origin::parse(body) {
                    queue.notes.origin = Known::Answered(origin);
                }
            }
            (b'D', _) => learn(queue, after, body),
            (b'E', Function::Note) if !self.is_failed() => {
                // A late cancel request, for example, which failed the transaction.
                let code = field(body, b'C').and_then(|code| <[u8; 5]>::try_from(code).ok());
                self.fail_transaction(code.map(SqlState::new));
            }
            (b'Z', _) => {
                if queue.notes.origin == Known::Asked && function == Function::Origin {
                    queue.notes.origin = Known::Refused;
                }
                self.asks.pop(queue);
            }
            (b'1' | b'2' | b'C' | b'E' | b'n' | b't' | b'T', _) => {}
            _ => return Passage::Pass,
        }
        Passage::Remove
    }

    /// Handles a message that may answer a question within the user's request.
    pub(super) fn answer_note_within(&self, queue: &mut Queue, kind: u8, body: &[u8]) -> Passage {
        match kind {
            b'2' => {}
            b'D' => {
                let request = queue.questions.front().map_or(0, |question| question.after + 1);
                learn(queue, request, body);
            }
            b'C' => self.asks.pop(queue),
            b'E' | b'Z' => {
                self.asks.pop(queue);
                return Passage::Pass;
            }
            _ => return Passage::Pass,
        }
        Passage::Remove
    }
}

/// Takes the answer behind a request.
fn learn(queue: &mut Queue, request: u64, row: &[u8]) {
    if let (Some(open), Some(answer)) = (&mut queue.notes.open, Answer::parse(row)) {
        open.noted = Some((request, answer));
    }
}
