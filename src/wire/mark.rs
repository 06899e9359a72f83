//! Recognises if a bare connection is still the one that was dialled.
//!
//! A user with `&mut AsyncPgConnection` can exchange it (`mem::swap`). The wire's state then belongs to another session
//! than the one that runs the statements. Diesel offers no identity for a connection except its instrumentation. So
//! each connection gets an instrumentation of ours, which forwards every event to the program's default.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use diesel::connection::{Instrumentation, InstrumentationEvent, get_default_instrumentation};
use diesel_async::{AsyncConnection, AsyncConnectionCore, AsyncPgConnection};

thread_local! {
    /// `Some` while a connection is asked for its mark.
    ///
    /// The value is the token's address, or 0 until a mark has answered.
    static ANSWER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The instrumentation that a program set for all connections.
type Listener = Arc<Mutex<Box<dyn Instrumentation>>>;

/// The owner's knowledge of the mark on a connection.
pub(super) struct Mark {
    /// Held by the mark alone, so it is gone when the mark is.
    ///
    /// Its memory stays allocated, so no other token has its address.
    token: Weak<()>,
    listener: Option<Listener>,
    /// `true` if the mark answers.
    ///
    /// A later diesel-async may report events at other times.
    answers: bool,
}

/// The mark itself.
struct Marked {
    token: Arc<()>,
    listener: Option<Listener>,
}

impl Mark {
    /// Marks a connection.
    pub(super) fn new(conn: &mut AsyncPgConnection) -> Self {
        let listener = get_default_instrumentation().map(|listener| Arc::new(Mutex::new(listener)));
        let mut mark = Self { token: Weak::new(), listener, answers: true };
        mark.put_on(conn);
        mark.answers = mark.is_on(conn);
        mark
    }

    fn put_on(&mut self, conn: &mut AsyncPgConnection) {
        let token = Arc::new(());
        self.token = Arc::downgrade(&token);
        conn.set_instrumentation(Marked { token, listener: self.listener.clone() });
    }

    /// Replaces the mark.
    ///
    /// Returns `false` if the connection did not have it, or shared it.
    ///
    /// Only the right connection drops the old mark when it gets a new one. A leaked future holds it, perhaps with a
    /// lock that the next statement needs.
    pub(super) fn renew(&mut self, conn: &mut AsyncPgConnection) -> bool {
        let before = std::mem::take(&mut self.token);
        if before.strong_count() == 0 {
            return false;
        }
        self.put_on(conn);
        let renewed = before.strong_count() == 0;
        if !renewed {
            // The new mark is on the wrong connection, which must fail the next check.
            self.token = Weak::new();
        }
        renewed
    }

    /// Returns `true` if the mark is certainly on another connection.
    ///
    /// A missing mark proves nothing: its connection may have been dropped, or got another instrumentation.
    pub(super) fn is_elsewhere(&self, conn: &AsyncPgConnection) -> bool {
        self.answers && self.token.strong_count() > 0 && !self.is_on(conn)
    }

    /// Asks a connection for its mark.
    ///
    /// Diesel reports a statement when it is created, and this one is dropped before it is sent.
    fn is_on(&self, mut conn: &AsyncPgConnection) -> bool {
        ANSWER.set(Some(0));
        drop(AsyncConnectionCore::execute_returning_count(&mut conn, diesel::sql_query("")));
        ANSWER.take() == Some(self.token.as_ptr().addr())
    }
}

impl Instrumentation for Marked {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if ANSWER.get().is_some() {
            ANSWER.set(Some(Arc::as_ptr(&self.token).addr()));
        } else if let Some(listener) = &self.listener {
            listener.lock().unwrap_or_else(PoisonError::into_inner).on_connection_event(event);
        }
    }
}
