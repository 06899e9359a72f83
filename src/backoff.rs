//! Exponential backoff with jitter: the wait before each new attempt.
//!
//! A client that retries at a fixed pace keeps hitting a server that is already in trouble. So each wait is longer
//! than the one before, by a constant factor, up to a maximum: *exponential backoff*. That alone is not enough. All
//! clients that lost the same server at the same moment would also come back at the same moments. *Jitter* spreads
//! them out. The reference is Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015
//! (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).
//!
//! The jitter here is a proportion `j` of the wait that is random:
//!
//! ```text
//! step(n)  = min(max, initial · factorⁿ)
//! delay(n) = step(n) · (1 − j · random),   0 ≤ random < 1
//! ```
//!
//! With `j = 0` the schedule is exact. `j = 0.5` is the article's *equal jitter*, where half of the wait is fixed
//! and half is random. `j = 1` is its *full jitter*. Jitter only shortens a wait. It applies to the bounded step,
//! as in the article. If the jitter were added first and the sum bounded afterwards, every wait on the plateau
//! would be exactly `max`. The clients would then retry in step, in exactly the outage that jitter is for.
//!
//! [`Backoff`] is the policy, immutable and shared. [`Delays`] is one use of the policy, and counts the attempts.

use std::time::Duration;

use fastrand::Rng;

#[cfg(test)]
mod tests;

/// A schedule of growing waits, with a maximum and jitter.
///
/// Each wait is longer than the one before by a factor, up to a maximum. Jitter shortens each wait by a random part of
/// it, so that many programs do not act in step. The default factor is 2, without jitter and without a limit of
/// attempts.
///
/// ```
/// use std::time::Duration;
///
/// use pointsman::Config;
/// use pointsman::config::{Backoff, BackoffError};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (initial, max) = (Duration::from_millis(50), Duration::from_secs(1));
/// let schedule = Backoff::new(initial, max)?.with_factor(1.5)?.with_jitter(0.2)?;
/// let config = Config::builder().primary("postgres://db/app").backoff(schedule).build()?;
/// # let _ = config;
/// assert_eq!(Backoff::new(max, initial), Err(BackoffError::InitialAboveMax { initial: max, max: initial }));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    initial: Duration,
    factor: f64,
    max: Duration,
    jitter: f64,
    attempts: Option<u32>,
}

/// The error for an invalid schedule.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BackoffError {
    /// The first wait is zero, so every later one would be zero too.
    #[error("the initial delay is zero: a retry without a wait is a busy loop, set at least 1ms")]
    ZeroInitial,
    /// The first wait is already longer than the longest one.
    #[error(
        "the initial delay {initial:?} is above the maximum {max:?}: raise the maximum or lower the initial"
    )]
    InitialAboveMax {
        /// The first wait.
        initial: Duration,
        /// The longest wait.
        max: Duration,
    },
    /// The waits would shrink, or the factor is not a number.
    #[error("the factor {0} is not a finite number of at least 1: use 2, or 1 for a constant delay")]
    Factor(f64),
    /// The jitter is not a proportion.
    #[error("the jitter {0} is not within 0..=1: use 0.2, or 0 for an exact schedule")]
    Jitter(f64),
}

impl Backoff {
    /// Creates a schedule from `initial`, doubling at each attempt, up to `max`.
    ///
    /// # Errors
    ///
    /// Fails if `initial` is zero or above `max`.
    pub fn new(initial: Duration, max: Duration) -> Result<Self, BackoffError> {
        if initial.is_zero() {
            return Err(BackoffError::ZeroInitial);
        }
        if initial > max {
            return Err(BackoffError::InitialAboveMax { initial, max });
        }
        Ok(Self { initial, factor: 2.0, max, jitter: 0.0, attempts: None })
    }

    /// Multiplies each wait by `factor` to get the next one.
    ///
    /// # Errors
    ///
    /// Fails if `factor` is below 1 or not finite.
    pub fn with_factor(mut self, factor: f64) -> Result<Self, BackoffError> {
        if !(factor.is_finite() && factor >= 1.0) {
            return Err(BackoffError::Factor(factor));
        }
        self.factor = factor;
        Ok(self)
    }

    /// Randomizes the proportion `jitter` of each wait.
    ///
    /// # Errors
    ///
    /// Fails if `jitter` is outside `0..=1`.
    pub fn with_jitter(mut self, jitter: f64) -> Result<Self, BackoffError> {
        if !(0.0..=1.0).contains(&jitter) {
            return Err(BackoffError::Jitter(jitter));
        }
        self.jitter = jitter;
        Ok(self)
    }

    /// Ends the schedule after `attempts` waits; zero means no retry.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts);
        self
    }

    /// Starts one use of this policy.
    #[must_use]
    pub(crate) fn delays(&self) -> Delays {
        self.delays_with(Rng::new())
    }

    /// Starts one use of this policy with the given randomness.
    ///
    /// Tests use it to repeat exactly.
    pub(crate) fn delays_with(&self, rng: Rng) -> Delays {
        Delays { policy: self.clone(), attempt: 0, rng }
    }

    /// Computes the wait before the retry number `attempt`, counted from 0.
    ///
    /// Returns `None` when the attempts are used up. No `attempt` overflows, because the wait is
    /// never above the maximum.
    fn delay(&self, attempt: u32, rng: &mut Rng) -> Option<Duration> {
        if self.attempts.is_some_and(|attempts| attempt >= attempts) {
            return None;
        }
        // A large attempt gives infinity, which is above the maximum like any other excess.
        let step = self.initial.as_secs_f64() * self.factor.powf(f64::from(attempt));
        let bounded = step.min(self.max.as_secs_f64());
        let seconds = if self.jitter > 0.0 { bounded * (1.0 - self.jitter * rng.f64()) } else { bounded };
        // The conversion fails only for a maximum beyond the precision of `f64`.
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(self.max).min(self.max))
    }

    pub(crate) fn initial(&self) -> Duration {
        self.initial
    }

    pub(crate) fn max(&self) -> Duration {
        self.max
    }

    pub(crate) fn factor(&self) -> f64 {
        self.factor
    }

    pub(crate) fn jitter(&self) -> f64 {
        self.jitter
    }

    pub(crate) fn attempts(&self) -> Option<u32> {
        self.attempts
    }
}

/// One use of a [`Backoff`].
///
/// It counts the attempts, and [`reset`](Delays::reset) starts the count again.
///
/// `Delays` is an iterator over the waits. Call `reset` after a success that lasted, so that the next failure
/// starts with a short wait again.
#[derive(Clone, Debug)]
pub(crate) struct Delays {
    policy: Backoff,
    attempt: u32,
    rng: Rng,
}

impl Delays {
    /// Starts the schedule again from the first wait.
    pub(crate) fn reset(&mut self) {
        self.attempt = 0;
    }

    /// Returns the number of waits since the start or the last reset.
    #[must_use]
    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let delay = self.policy.delay(self.attempt, &mut self.rng)?;
        self.attempt = self.attempt.saturating_add(1);
        Some(delay)
    }
}
