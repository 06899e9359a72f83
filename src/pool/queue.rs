//! The queue of callers that found no idle connection: first in, first out.
//!
//! A caller past the gate waits here for the next connection, returned or newly opened. The first caller in the queue
//! gets it. Connections are opened as long as there are more waiting callers than attempts, and room in the pool. After
//! a failed attempt, callers keep waiting while the pool has sessions that will be returned, or other attempts that may
//! succeed. With neither, they get its error.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::breaker::{Admission, Breaker};
use super::lease::Slot;
use super::{PoolError, PooledConnection, Shared};
use crate::backoff::Backoff;
use crate::error::ConnectError;

/// The answer to a waiting caller.
type Answer = Result<Slot, PoolError>;

/// The callers that wait for a connection, and the attempts to open some.
pub(super) struct Queue {
    state: Mutex<State>,
    /// Callers in the queue.
    ///
    /// It is readable without the lock, so that a checkout needs no lock while the queue is empty.
    waiting: AtomicUsize,
}

struct State {
    waiting: VecDeque<oneshot::Sender<Answer>>,
    /// Attempts to connect in progress.
    attempts: u32,
    breaker: Breaker,
    /// `true` while a task sleeps until the breaker admits an attempt.
    alarm: bool,
}

impl Queue {
    pub(super) fn new(delays: &Backoff) -> Self {
        let breaker = Breaker::new(delays);
        let state = State { waiting: VecDeque::new(), attempts: 0, breaker, alarm: false };
        Self { state: Mutex::new(state), waiting: AtomicUsize::new(0) }
    }

    /// Returns `true` if no caller waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0
    }

    /// Returns the error of the last login, if none has succeeded since.
    pub(super) fn cause(&self) -> Option<Arc<ConnectError>> {
        self.lock().breaker.cause().cloned()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Joins the queue at its end.
    pub(super) fn join_queue(self: &Arc<Self>) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.queue.lock();
        state.waiting.push_back(sender);
        // Stored before the check for idle connections. A caller that returns a connection checks the queue afterwards,
        // so one of the two sees the other.
        self.queue.waiting.store(state.waiting.len(), Ordering::SeqCst);
        self.advance(&mut state);
        receiver
    }

    /// Reacts to a returned connection, or to room for a new one.
    pub(super) fn on_return(self: &Arc<Self>) {
        if !self.queue.is_empty() {
            self.advance(&mut self.queue.lock());
        }
    }

    /// Reacts to a node that is up: earlier rejections no longer count.
    pub(super) fn on_up(self: &Arc<Self>) {
        let mut state = self.queue.lock();
        if state.breaker.cause().is_some() {
            state.breaker.reset();
            self.advance(&mut state);
        }
    }

    /// Hands out idle connections, and opens missing ones.
    ///
    /// Fails the callers that no connection can reach.
    fn advance(self: &Arc<Self>, state: &mut State) {
        // A connection may be returned outside the runtime.
        let runtime = self.runtime();
        let _entered = runtime.enter();
        state.waiting.retain(|caller| !caller.is_closed());
        self.hand_out(state);
        self.connect(state);
        if state.attempts == 0
            && self.idle.connections() == 0
            && let Some(cause) = state.breaker.cause()
        {
            for caller in state.waiting.drain(..) {
                // A caller that was cancelled needs no answer.
                let _ = caller.send(Err(PoolError::Connect(Arc::clone(cause))));
            }
        }
        self.queue.waiting.store(state.waiting.len(), Ordering::SeqCst);
    }

    fn hand_out(self: &Arc<Self>, state: &mut State) {
        while !state.waiting.is_empty() {
            let Some(pooled) = self.idle.take() else { return };
            let mut answer = Ok(Slot::new(pooled, self));
            while let Some(caller) = state.waiting.pop_front() {
                match caller.send(answer) {
                    Ok(()) => break,
                    // The caller was cancelled in the meantime.
                    Err(back) => answer = back,
                }
                if state.waiting.is_empty() {
                    // No caller is left, so return it without checking the queue, whose lock is held here.
                    answer.into_iter().for_each(Slot::put_back);
                    return;
                }
            }
        }
    }

    fn connect(self: &Arc<Self>, state: &mut State) {
        let now = Instant::now();
        while state.waiting.len() > state.attempts as usize
            && self.idle.connections() + state.attempts < self.settings.max_size
            && !self.generation.load().is_cancelled()
        {
            let begun = match state.breaker.admission(now) {
                Admission::All => false,
                Admission::One => state.breaker.begin(now),
                Admission::Undecided => return,
                Admission::Not { before } => {
                    if !std::mem::replace(&mut state.alarm, true) {
                        self.wake_at(before);
                    }
                    return;
                }
            };
            state.attempts += 1;
            self.runtime().spawn(Arc::clone(self).attempt(begun));
        }
    }

    /// Checks again when the breaker admits an attempt.
    fn wake_at(self: &Arc<Self>, instant: Instant) {
        let shared = Arc::downgrade(self);
        self.runtime().spawn(async move {
            sleep_until(instant).await;
            if let Some(shared) = shared.upgrade() {
                let mut state = shared.queue.lock();
                state.alarm = false;
                shared.advance(&mut state);
            }
        });
    }

    /// Runs one attempt to connect, for the first caller in the queue by then.
    ///
    /// It runs in a separate task, so that a cancelled caller does not leave a server with half a login.
    async fn attempt(self: Arc<Self>, begun: bool) {
        let generation = self.generation.load_full();
        let dial = async {
            let _place = self.limits.connects.acquire().await.ok_or(ConnectError::Abandoned)?;
            // Another attempt may have failed while this one waited for its permit.
            if !begun && !self.queue.lock().breaker.begin(Instant::now()) {
                return Err(ConnectError::Abandoned);
            }
            let (dialer, stats) = (&self.dialer, Arc::clone(&self.stats));
            dialer.dial(self.kind, dialer.limit(), stats, generation.child_token()).await
        };
        let outcome = tokio::select! {
            biased;
            outcome = dial => outcome,
            () = generation.cancelled() => Err(ConnectError::Abandoned),
        };
        let mut state = self.queue.lock();
        state.attempts -= 1;
        match outcome {
            Ok(link) => {
                state.breaker.on_success();
                self.idle.add(PooledConnection::new(link, &self.settings));
            }
            Err(ConnectError::Abandoned) => state.breaker.on_abandoned(Instant::now()),
            Err(error) => {
                if !error.proves_alive() {
                    self.stats.suspect();
                }
                state.breaker.on_failure(Arc::new(error), Instant::now());
            }
        }
        self.advance(&mut state);
    }
}
