//! When a pool may try to log in again after a login failed.
//!
//! A *circuit breaker* keeps callers from asking a server for what it has just refused. Closed, it lets attempts
//! through. A failed attempt opens it for a delay, which grows with each failure; callers get the stored error
//! meanwhile, and the server gets no login. After the delay it is half-open: it lets one attempt through, which closes
//! it or opens it for longer.
//!
//! Reference: M. Nygard, "Release It!", 2nd edition, chapter 5, "Circuit Breaker".

use std::sync::Arc;

use tokio::time::Instant;

use crate::backoff::{Backoff, Delays};
use crate::error::ConnectError;

/// The logins of one pool: one node, one purpose.
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

/// Whether a login may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Any number of them.
    All,
    /// One, which decides about the next ones.
    One,
    /// None while the one attempt is under way.
    Undecided,
    /// None before this instant.
    Not { before: Instant },
}

impl Breaker {
    /// A closed one.
    pub(super) fn new(delays: &Backoff) -> Self {
        Self { longest: delays.max(), delays: delays.delays(), state: State::Closed, cause: None }
    }

    /// Whether a login may be tried now. It changes nothing.
    pub(super) fn admission(&self, now: Instant) -> Admission {
        match self.state {
            State::Closed => Admission::All,
            State::Open { until } if now < until => Admission::Not { before: until },
            State::Open { .. } => Admission::One,
            State::HalfOpen => Admission::Undecided,
        }
    }

    /// Begins an attempt, if it may be made; its outcome must be told.
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

    /// An attempt succeeded.
    pub(super) fn on_success(&mut self) {
        self.reset();
    }

    /// An attempt failed. Those that fail together with the first one make the delay no longer.
    pub(super) fn on_failure(&mut self, error: Arc<ConnectError>, now: Instant) {
        if !matches!(self.state, State::Open { .. }) {
            // A pool never gives up: when a schedule has an end, its longest step goes on.
            let delay = self.delays.next().unwrap_or(self.longest);
            self.state = State::Open { until: now + delay };
        }
        self.cause = Some(error);
    }

    /// An attempt was given up before it told anything.
    pub(super) fn on_abandoned(&mut self, now: Instant) {
        if self.state == State::HalfOpen {
            self.state = State::Open { until: now };
        }
    }

    /// Forgets the failures: the server is known to be another one than it was, or well again.
    pub(super) fn reset(&mut self) {
        self.delays.reset();
        self.state = State::Closed;
        self.cause = None;
    }

    /// The error of the last failed attempt, if none has succeeded since.
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
    async fn a_success_or_a_reset_lets_everybody_in_and_starts_the_schedule_over() {
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
