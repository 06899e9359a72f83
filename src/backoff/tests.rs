use std::time::Duration;

use fastrand::Rng;
use proptest::prelude::*;

use super::{Backoff, BackoffError};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// The classic schedule: 2, 4, 8, 16 and 32 seconds, five attempts, no jitter.
fn classic() -> Backoff {
    Backoff::new(Duration::from_secs(2), Duration::from_secs(32)).unwrap().with_attempts(5)
}

#[test]
fn classic_waits_2_4_8_16_32_seconds_and_gives_up() {
    let policy = classic();
    let mut rng = Rng::with_seed(1);
    for (attempt, seconds) in [2, 4, 8, 16, 32].into_iter().enumerate() {
        assert_eq!(policy.delay(attempt as u32, &mut rng), Some(Duration::from_secs(seconds)));
    }
    assert_eq!(policy.delay(5, &mut rng), None);
    assert_eq!(policy.delay(u32::MAX, &mut rng), None);
}

#[test]
fn without_jitter_each_step_is_exact_up_to_the_plateau() {
    let policy = Backoff::new(MS(100), MS(1000)).unwrap();
    let waits: Vec<_> = policy.delays_with(Rng::with_seed(1)).take(7).collect();
    assert_eq!(waits, [100, 200, 400, 800, 1000, 1000, 1000].map(MS));
}

#[test]
fn a_factor_of_one_is_a_constant_wait() {
    let policy = Backoff::new(MS(25), MS(25)).unwrap().with_factor(1.0).unwrap().with_attempts(3);
    let waits: Vec<_> = policy.delays_with(Rng::with_seed(1)).collect();
    assert_eq!(waits, [MS(25); 3]);
}

#[test]
fn jitter_also_spreads_the_plateau() {
    // If the jitter is added before the bound, the bound cuts it off, and all clients wait exactly `max`.
    let policy = Backoff::new(MS(100), MS(1000)).unwrap().with_jitter(0.2).unwrap();
    let mut rng = Rng::with_seed(7);
    let waits: Vec<_> = (0..100).map(|_| policy.delay(30, &mut rng).unwrap()).collect();
    let distinct: std::collections::HashSet<_> = waits.iter().collect();
    assert!(distinct.len() > 90, "only {} different waits", distinct.len());
    assert!(waits.iter().all(|wait| (MS(800)..=MS(1000)).contains(wait)), "{waits:?}");
}

#[test]
fn full_jitter_reaches_down_towards_zero() {
    let policy = Backoff::new(MS(1000), MS(1000)).unwrap().with_jitter(1.0).unwrap();
    let mut rng = Rng::with_seed(7);
    assert!((0..200).filter_map(|_| policy.delay(0, &mut rng)).any(|wait| wait < MS(50)));
}

#[test]
fn one_seed_repeats_exactly_and_two_seeds_differ() {
    let policy = Backoff::new(MS(100), MS(1000)).unwrap().with_jitter(0.5).unwrap();
    let waits = |seed| policy.delays_with(Rng::with_seed(seed)).take(10).collect::<Vec<_>>();
    assert_eq!(waits(3), waits(3));
    assert_ne!(waits(3), waits(4));
}

#[test]
fn a_reset_starts_over_also_after_the_last_attempt() {
    let mut delays = Backoff::new(MS(10), MS(1000)).unwrap().with_attempts(2).delays();
    assert_eq!([delays.next(), delays.next(), delays.next()], [Some(MS(10)), Some(MS(20)), None]);
    assert_eq!(delays.attempt(), 2, "asking in vain isn't an attempt");
    delays.reset();
    assert_eq!(delays.next(), Some(MS(10)));
}

#[test]
fn zero_attempts_means_never_again() {
    assert_eq!(classic().with_attempts(0).delays().next(), None);
}

#[test]
fn invalid_settings_are_refused_with_a_remedy() {
    assert_eq!(Backoff::new(Duration::ZERO, MS(1)), Err(BackoffError::ZeroInitial));
    assert_eq!(Backoff::new(MS(2), MS(1)), Err(BackoffError::InitialAboveMax { initial: MS(2), max: MS(1) }));
    for factor in [0.99, 0.0, -2.0, f64::INFINITY, f64::NAN] {
        assert!(matches!(classic().with_factor(factor), Err(BackoffError::Factor(_))), "{factor}");
    }
    for jitter in [-0.01, 1.01, f64::INFINITY, f64::NAN] {
        assert!(matches!(classic().with_jitter(jitter), Err(BackoffError::Jitter(_))), "{jitter}");
    }
}

#[test]
fn the_longest_duration_there_is_does_not_overflow() {
    let policy = Backoff::new(Duration::MAX, Duration::MAX).unwrap().with_factor(f64::MAX).unwrap();
    assert_eq!(policy.delay(u32::MAX, &mut Rng::with_seed(1)), Some(Duration::MAX));
}

fn policies() -> impl Strategy<Value = Backoff> {
    (1..=u64::MAX, 0..=u64::MAX, 1.0..1e9_f64, 0.0..=1.0_f64).prop_map(|(initial, more, factor, jitter)| {
        let initial = Duration::from_nanos(initial);
        Backoff::new(initial, initial.saturating_add(Duration::from_micros(more)))
            .and_then(|policy| policy.with_factor(factor))
            .and_then(|policy| policy.with_jitter(jitter))
            .unwrap()
    })
}

proptest! {
    #[test]
    fn no_wait_is_above_the_maximum(policy in policies(), attempt: u32, seed: u64) {
        let wait = policy.delay(attempt, &mut Rng::with_seed(seed)).unwrap();
        prop_assert!(wait <= policy.max());
    }

    #[test]
    fn jitter_takes_no_more_than_its_share(policy in policies(), attempt: u32, seed: u64) {
        let rng = &mut Rng::with_seed(seed);
        let exact = policy.clone().with_jitter(0.0).unwrap().delay(attempt, rng).unwrap().as_secs_f64();
        let wait = policy.delay(attempt, rng).unwrap().as_secs_f64();
        let least = exact * (1.0 - policy.jitter());
        // A nanosecond for the rounding of a `Duration`, a proportion for the rounding of an `f64`.
        prop_assert!(wait <= exact + 1e-9 && wait >= least - 1e-9 - exact * 1e-12, "{wait} of {exact}");
    }

    #[test]
    fn without_jitter_no_wait_is_shorter_than_the_one_before(policy in policies(), attempt in 0..u32::MAX) {
        let policy = policy.with_jitter(0.0).unwrap();
        let rng = &mut Rng::with_seed(0);
        prop_assert!(policy.delay(attempt, rng) <= policy.delay(attempt + 1, rng));
        prop_assert!(policy.delay(attempt % 64, rng) <= policy.delay(attempt % 64 + 1, rng));
    }

    #[test]
    fn there_are_exactly_as_many_waits_as_attempts(policy in policies(), attempts in 0..500_u32, seed: u64) {
        let policy = policy.with_attempts(attempts);
        prop_assert_eq!(policy.delays_with(Rng::with_seed(seed)).count(), attempts as usize);
        prop_assert_eq!(policy.delays().count(), attempts as usize);
    }

    #[test]
    fn no_attempt_overflows(policy in policies(), seed: u64) {
        let rng = &mut Rng::with_seed(seed);
        for attempt in [0, 1, 63, 64, 1023, 1024, u32::MAX - 1, u32::MAX] {
            prop_assert!(policy.delay(attempt, rng).is_some());
        }
    }
}
