//! A bounded queue of events from connection to program, which marks gaps.
//!
//! PostgreSQL keeps notifications in one queue for all databases until every listening session has read them. A session
//! that does not read makes this queue grow, and once it is full, every transaction that notifies fails at its COMMIT.
//! So the connection is read even if the program does not take its events. An event that does not fit is dropped, and a
//! [`MayHaveMissed`](ListenEvent::MayHaveMissed) marks the gap.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use super::event::{Gap, ListenEvent, Notification};

/// Events kept for a program that does not take them.
///
/// A payload has less than 8000 bytes, so they need 8 MB at most.
const CAPACITY: usize = 1024;

/// The number of a session; late messages of a replaced session are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionNumber(u64);

/// The events that the program has not taken yet (pure).
#[derive(Debug, Default)]
struct Inbox {
    events: VecDeque<ListenEvent>,
    sessions: u64,
    /// `true` if the last session is open, or about to be.
    open: bool,
    /// `true` if no more events follow.
    ended: bool,
}

impl Inbox {
    fn begin(&mut self) -> SessionNumber {
        self.sessions += 1;
        self.open = true;
        SessionNumber(self.sessions)
    }

    fn is_full(&self) -> bool {
        self.events.len() >= CAPACITY
    }

    fn hear(&mut self, session: SessionNumber, notification: Notification) {
        if !self.open || session.0 != self.sessions {
            return;
        }
        if self.is_full() {
            self.miss(Gap::Overflow);
        } else {
            self.events.push_back(ListenEvent::Notification(notification));
        }
    }

    /// Adds a mark behind the last event, unless one is there already.
    ///
    /// So the queue exceeds its capacity by one event at most.
    fn miss(&mut self, gap: Gap) {
        let no_room = self.events.len() > CAPACITY;
        match self.events.back_mut() {
            Some(ListenEvent::MayHaveMissed(_)) if gap == Gap::Overflow => {}
            Some(ListenEvent::MayHaveMissed(last)) if no_room => *last = gap,
            _ => self.events.push_back(ListenEvent::MayHaveMissed(gap)),
        }
    }

    fn interrupt(&mut self, event: ListenEvent) {
        self.open = false;
        // If there is no room, the mark that follows is enough.
        if !self.is_full() {
            self.events.push_back(event);
        }
    }

    fn end(&mut self, last: Option<ListenEvent>) {
        self.open = false;
        if !self.ended {
            self.events.extend(last);
            self.ended = true;
        }
    }
}

/// An [`Inbox`] that a task fills and a stream empties.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    inbox: Mutex<Inbox>,
    reader: AtomicWaker,
}

impl Mailbox {
    /// Begins a session; notifications of earlier ones are ignored from now on.
    pub(super) fn begin(&self) -> SessionNumber {
        self.lock().begin()
    }

    /// Keeps a notification that a session received.
    pub(super) fn hear(&self, session: SessionNumber, notification: Notification) {
        self.change(|inbox| inbox.hear(session, notification));
    }

    /// Records that the session ended, or was given up before it was confirmed.
    pub(super) fn interrupt(&self, event: ListenEvent) {
        self.change(|inbox| inbox.interrupt(event));
    }

    /// Records a new session, before which notifications may be missing.
    pub(super) fn resume(&self, gap: Gap) {
        self.change(|inbox| inbox.miss(gap));
    }

    /// Ends the queue after this event.
    pub(super) fn end(&self, last: Option<ListenEvent>) {
        self.change(|inbox| inbox.end(last));
    }

    /// Takes the next event; `None` when all were taken and no more follow.
    pub(super) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<ListenEvent>> {
        // Register before the check, so that an event in between wakes the reader.
        self.reader.register(context.waker());
        let mut inbox = self.lock();
        match inbox.events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if inbox.ended => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Inbox)) {
        change(&mut self.lock());
        self.reader.wake();
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        // No code panics half-way through a change.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Interruption;
    use super::*;
    use std::time::Duration;

    fn notification(n: usize) -> Notification {
        Notification { channel: "c".to_owned(), payload: n.to_string(), process_id: 1 }
    }

    fn interrupted() -> ListenEvent {
        ListenEvent::Interrupted { node: "db-1".to_owned(), reason: Interruption::Closed }
    }

    fn reconnected(seconds: u64) -> Gap {
        Gap::Reconnected { node: "db-2".to_owned(), after: Duration::from_secs(seconds) }
    }

    fn drain(inbox: &mut Inbox) -> Vec<ListenEvent> {
        inbox.events.drain(..).collect()
    }

    #[test]
    fn what_does_not_fit_is_replaced_by_one_mark_at_its_place() {
        let mut inbox = Inbox::default();
        let session = inbox.begin();
        (0..CAPACITY + 500).for_each(|n| inbox.hear(session, notification(n)));
        assert_eq!(inbox.events.len(), CAPACITY + 1);
        // The program takes two; the first one makes no room yet.
        inbox.events.drain(..2);
        inbox.hear(session, notification(9999));
        let events = drain(&mut inbox);
        assert_eq!(events[CAPACITY - 3], ListenEvent::Notification(notification(CAPACITY - 1)));
        assert_eq!(events[CAPACITY - 2], ListenEvent::MayHaveMissed(Gap::Overflow));
        assert_eq!(events[CAPACITY - 1..], [ListenEvent::Notification(notification(9999))]);
    }

    #[test]
    fn an_outage_is_told_by_two_events() {
        let mut inbox = Inbox::default();
        let session = inbox.begin();
        inbox.hear(session, notification(1));
        inbox.interrupt(interrupted());
        inbox.hear(session, notification(2));
        let next = inbox.begin();
        inbox.hear(session, notification(3));
        inbox.miss(reconnected(2));
        inbox.hear(next, notification(4));
        let missed = ListenEvent::MayHaveMissed(reconnected(2));
        let [first, fourth] = [1, 4].map(|n| ListenEvent::Notification(notification(n)));
        assert_eq!(drain(&mut inbox), [first, interrupted(), missed, fourth]);
    }

    #[test]
    fn a_program_that_takes_nothing_for_months_of_outages_costs_no_more_memory() {
        let mut inbox = Inbox::default();
        for round in 0..10 * CAPACITY as u64 {
            let session = inbox.begin();
            inbox.hear(session, notification(0));
            inbox.interrupt(interrupted());
            inbox.miss(reconnected(round));
        }
        assert_eq!(inbox.events.len(), CAPACITY + 1);
        let last = ListenEvent::MayHaveMissed(reconnected(10 * CAPACITY as u64 - 1));
        assert_eq!(inbox.events.back(), Some(&last), "it names the node of the last session");
    }

    #[tokio::test]
    async fn the_end_is_told_once_and_then_the_stream_is_over() {
        let mailbox = Mailbox::default();
        let session = mailbox.begin();
        mailbox.hear(session, notification(1));
        mailbox.end(Some(ListenEvent::Closed));
        mailbox.end(None);
        mailbox.hear(session, notification(2));
        let next = || std::future::poll_fn(|context| mailbox.poll_next(context));
        assert_eq!(next().await, Some(ListenEvent::Notification(notification(1))));
        assert_eq!(next().await, Some(ListenEvent::Closed));
        assert_eq!(next().await, None);
        assert_eq!(next().await, None);
    }
}
