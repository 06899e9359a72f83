//! The answers to the questions, which the driver does not get.

use std::sync::atomic::Ordering;

use super::question::{Function, Place, Row, Statement};
use super::{Answer, Passage, Queue, WireState};
use crate::lsn::Lsn;
use crate::wire::frames::field;

impl WireState {
    /// Handles a message of the server while a question is to be answered.
    pub(in crate::wire) fn answer(&self, kind: u8, body: &[u8]) -> Passage {
        if kind == b'E' && is_fatal(body) {
            return Passage::Pass;
        }
        let mut queue = self.asks.queue();
        let Some((place, is_note)) =
            queue.questions.front().map(|next| (next.place, next.function.is_note()))
        else {
            return Passage::Pass;
        };
        match place {
            Place::Before | Place::Behind if is_note => self.answer_note_apart(&mut queue, kind, body),
            Place::Before | Place::Behind => self.answer_apart(&mut queue, kind, body),
            Place::Leading | Place::Trailing { statements: 0 } if is_note => {
                self.answer_note_within(&mut queue, kind, body)
            }
            Place::Leading | Place::Trailing { statements: 0 } => self.answer_within(&mut queue, kind, body),
            Place::Unconfirmed { position } => {
                // A promotion is reported here, and after it the request may have read more than was ever replayed.
                if kind == b'Z' {
                    self.learn_position(&mut queue, position);
                    self.asks.pop(&mut queue);
                }
                Passage::Pass
            }
            Place::Trailing { statements } => {
                match kind {
                    b'C' | b'I' | b's' => {
                        if let Some(question) = queue.questions.front_mut() {
                            question.place = Place::Trailing { statements: statements - 1 };
                        }
                    }
                    // The server skips the question.
                    b'E' | b'Z' => {
                        if !is_note {
                            self.asks.missed.store(true, Ordering::Release);
                        }
                        self.asks.pop(&mut queue);
                    }
                    _ => {}
                }
                Passage::Pass
            }
        }
    }

    /// Handles a message that may answer a question in a separate request.
    fn answer_apart(&self, queue: &mut Queue, kind: u8, body: &[u8]) -> Passage {
        match kind {
            b'V' => self.learn(queue, body),
            b'E' => on_error(queue, field(body, b'C')),
            b'Z' => self.asks.pop(queue),
            _ => return Passage::Pass,
        }
        Passage::Remove
    }

    /// Handles a message that may answer a question within the user's request.
    fn answer_within(&self, queue: &mut Queue, kind: u8, body: &[u8]) -> Passage {
        match kind {
            b'1' => queue.statement = Statement::Prepared,
            b'2' => {}
            b'D' => {
                let row = Row::parse(body);
                let is_leading = queue.questions.front().is_some_and(|next| next.place == Place::Leading);
                if is_leading && row.is_none_or(|row| !row.is_read_committed) {
                    // The statements behind it have an older snapshot, so it proves nothing.
                    queue.statement = Statement::Unsuitable;
                } else if let Some(position) = row.and_then(|row| row.position) {
                    if is_leading {
                        self.learn_position(queue, position);
                    } else {
                        queue.trailing = position;
                    }
                }
            }
            b'C' => match queue.questions.front_mut() {
                Some(question) if question.place != Place::Leading && queue.trailing != Lsn::default() => {
                    question.place = Place::Unconfirmed { position: std::mem::take(&mut queue.trailing) };
                }
                _ => self.asks.pop(queue),
            },
            b'E' | b'Z' => {
                // It fails the user's request as well: a cancelled request, for example.
                queue.trailing = Lsn::default();
                self.asks.missed.store(true, Ordering::Release);
                queue.statement = Statement::Unsuitable;
                self.asks.pop(queue);
                return Passage::Pass;
            }
            _ => return Passage::Pass,
        }
        Passage::Remove
    }

    /// Takes the value that a function returned: its length, and its bytes.
    fn learn(&self, queue: &mut Queue, body: &[u8]) {
        let value = body.get(4..).unwrap_or_default();
        let Some(function) = queue.questions.front().map(|question| question.function) else { return };
        if function == Function::Timeline {
            let hex = value.get(..8).and_then(|digits| std::str::from_utf8(digits).ok());
            let timeline = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or_default();
            self.asks.timeline.store(timeline, Ordering::Release);
            return;
        }
        if function == Function::ReplayPosition && queue.statement == Statement::Unchecked {
            queue.statement = Statement::Allowed;
        }
        // A server that never replayed anything has no replay position.
        let Ok(bytes) = <[u8; 8]>::try_from(value) else { return };
        self.learn_position(queue, Lsn::new(u64::from_be_bytes(bytes)));
    }

    /// Takes the position that answers the first question.
    fn learn_position(&self, queue: &mut Queue, position: Lsn) {
        let Some(question) = queue.questions.front() else { return };
        let position = position.end_of_last_record();
        let is_replay = question.function == Function::ReplayPosition;
        if is_replay && !self.is_standby() {
            // It was promoted in between, so it may have been further already.
            self.asks.missed.store(true, Ordering::Release);
        } else {
            let timeline = match &question.tracking {
                // A standby may have gone on to the timeline of a new primary since it was tracked.
                Some(tracking) if is_replay => tracking.timeline.max(self.stats().followed_timeline()),
                _ => self.asks.timeline.load(Ordering::Acquire),
            };
            if let Some(tracking) = &question.tracking {
                tracking.log.record(timeline, position);
            }
        }
        let is_of_primary = question.tracking.as_ref().is_some_and(|tracking| tracking.is_primary);
        if question.place.is_first() {
            queue.before = Some(Answer { position, is_replayed: is_replay });
        }
        // A position of a server that was promoted unseen is on a history that the set does not know yet.
        if is_replay || is_of_primary {
            self.stats().note_position(position);
        }
    }
}

/// Handles an error of the server instead of a position.
fn on_error(queue: &Queue, sqlstate: Option<&[u8]>) {
    let Some(question) = queue.questions.front() else { return };
    match &question.tracking {
        // 42501, insufficient privilege: it will fail again.
        Some(tracking) if sqlstate == Some(b"42501") => tracking.log.refuse(),
        // A late cancel request, for example.
        _ => question.fail(),
    }
}

/// Returns `true` if an error ends the session.
fn is_fatal(body: &[u8]) -> bool {
    let severity = field(body, b'V').or_else(|| field(body, b'S'));
    matches!(severity, Some(b"FATAL" | b"PANIC"))
}
