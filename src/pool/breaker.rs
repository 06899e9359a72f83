//! Decides when a pool may try to log in again after a failed login.
//!
//! A *circuit breaker* spares a server the requests that it has just rejected. While it is closed, it admits attempts.
//! A failed attempt opens it for a delay, which grows with each failure. While it is open, callers get the stored error
//! and the server gets no login. After the delay it is half-open and admits one attempt, which closes it or opens it
//! for longer.
//!
//! Reference: M. Nygard, "Release It!", 2nd edition, chapter 5, "Circuit Breaker".

use std::sync::Arc;

use tokio::time::Instant;

use crate::backoff::{Backoff, Delays};
use crate::error::ConnectError;

/// The logins of one pool: one node, one kind of session.
#[derive(Debug)]
pub(super) struct Breaker {
    delays: Delays,
    longest: std::time::Duration,
    state: State,
    /// The error of the last failed attempt, until one succeeds.
    cause: Option<Arc<ConnectError>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

/// The logins that may be tried now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Any number of them.
    All,
    /// One attempt, whose outcome decides about the next ones.
    One,
    /// None while the one attempt is in progress.
    Undecided,
    /// None before this instant.
    Not { before: Instant },
}

impl Breaker {
    /// Creates a closed breaker.
    pub(super) fn new(delays: &Backoff) -> Self {
        Self { longest: delays.max(), delays: delays.delays(), state: State::Closed, cause: None }
    }

    /// Returns the logins that may be tried now, and changes nothing.
    pub(super) fn admission(&self, now: Instant) -> Admission {
        match self.state {
            State::Closed => Admission::All,
            State::Open { until } if now < until => Admission::Not { before: until },
            State::Open { .. } => Admission::One,
            State::HalfOpen => Admission::Undecided,
        }
    }

    /// Begins an attempt, if one is admitted; its outcome must be reported.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        match self.admission(now) {
            Admission::All => true,
            Admission::One => {
                self.state = State::HalfOpen;
                true
            }
            Admission::Undecided | Admission::Not { .. } => false,
        }
    }

    /// Records a successful attempt.
    pub(super) fn on_success(&mut self) {
        self.reset();
    }

    /// Records a failed attempt.
    ///
    /// One that fails together with the first does not lengthen the delay.
    pub(super) fn on_failure(&mut self, error: Arc<ConnectError>, now: Instant) {
        if !matches!(self.state, State::Open { .. }) {
            // A pool never gives up: after the schedule ends, its longest delay repeats.
            let delay = self.delays.next().unwrap_or(self.longest);
            self.state = State::Open { until: now + delay };
        }
        self.cause = Some(error);
    }

    /// Records an attempt that was cancelled before it had an outcome.
    pub(super) fn on_abandoned(&mut self, now: Instant) {
        if self.state == State::HalfOpen {
            self.state = State::Open { until: now };
        }
    }

    /// Clears the failures, because the server was replaced or is up again.
    pub(super) fn reset(&mut self) {
        self.delays.reset();
        self.state = State::Closed;
        self.cause = None;
    }

    /// Returns the error of the last failed attempt, if none has succeeded since.
    pub(super) fn cause(&self) -> Option<&Arc<ConnectError>> {
        self.cause.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::advance;

    fn breaker() -> Breaker {
        let delays = Backoff::new(Duration::from_millis(100), Duration::from_secs(1)).expect("a schedule");
        Breaker::new(&delays)
    }

    fn fail(breaker: &mut Breaker) {
        breaker.on_failure(
            Arc::new(ConnectError::Unreachable(std::io::ErrorKind::ConnectionRefused.into())),
            Instant::now(),
        );
    }

    #[tokio::test(start_paused = true)]
    async fn it_tries_less_and_less_often_and_once_at_a_time() {
        let mut breaker = breaker();
        let began = Instant::now();
        let mut attempts = Vec::new();
        while began.elapsed() < Duration::from_secs(5) {
            if breaker.begin(Instant::now()) {
                attempts.push(began.elapsed().as_millis());
                if attempts.len() > 1 {
                    assert_eq!(breaker.admission(Instant::now()), Admission::Undecided);
                    assert!(!breaker.begin(Instant::now()), "one at a time");
                }
                fail(&mut breaker);
                assert!(breaker.cause().is_some());
            }
            advance(Duration::from_millis(10)).await;
        }
        assert_eq!(attempts, [0, 100, 300, 700, 1500, 2500, 3500, 4500]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_attempts_that_were_made_together_count_as_one() {
        let mut breaker = breaker();
        assert!((0..4).all(|_| breaker.begin(Instant::now())));
        (0..4).for_each(|_| fail(&mut breaker));
        let before = Instant::now() + Duration::from_millis(100);
        assert_eq!(breaker.admission(Instant::now()), Admission::Not { before });
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_or_a_reset_lets_all_callers_in_and_starts_the_schedule_over() {
        for by_success in [true, false] {
            let mut breaker = breaker();
            fail(&mut breaker);
            advance(Duration::from_millis(100)).await;
            assert!(breaker.begin(Instant::now()));
            fail(&mut breaker);
            advance(Duration::from_millis(200)).await;
            if by_success {
                assert!(breaker.begin(Instant::now()));
                breaker.on_success();
            } else {
                breaker.reset();
            }
            assert_eq!(breaker.admission(Instant::now()), Admission::All);
            assert!(breaker.cause().is_none());
            fail(&mut breaker);
            let before = Instant::now() + Duration::from_millis(100);
            assert_eq!(breaker.admission(Instant::now()), Admission::Not { before });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_was_given_up_leaves_the_next_one_its_chance() {
        let mut breaker = breaker();
        fail(&mut breaker);
        advance(Duration::from_millis(100)).await;
        assert!(breaker.begin(Instant::now()));
        breaker.on_abandoned(Instant::now());
        assert_eq!(breaker.admission(Instant::now()), Admission::One);
    }
}
