//! When a slow read is tried on a second node as well.
//!
//! A *hedged request* is sent again, elsewhere, when its answer takes far longer than usual, and the first answer
//! wins. It cuts the tail of the latency for little more load, as long as it is held to a budget: when everything is
//! slow, second requests would only make it slower.
//!
//! Source: J. Dean, L. A. Barroso, "The Tail at Scale", Communications of the ACM 56(2), 2013.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::ReadSettings;

/// So many times its node's 99th percentile is "far longer" than usual.
const FAR_LONGER: f64 = 1.5;

/// Without a percentile yet, so many times the shortest wait.
const WITHOUT_PERCENTILE: u32 = 4;

/// How long to wait for an answer before a second node is tried.
pub(super) fn delay(settings: &ReadSettings, p99: Option<Duration>) -> Duration {
    let usual = p99.map_or(settings.hedge_min_delay * WITHOUT_PERCENTILE, |p99| p99.mul_f64(FAR_LONGER));
    usual.max(settings.hedge_min_delay)
}

/// What may be spent on second tries: each read pays in a share, each second try costs one.
#[derive(Debug)]
pub(super) struct Budget {
    /// In thousandths of a second try.
    balance: AtomicU64,
    share: u64,
}

const ONE: u64 = 1000;

/// The most that can be saved. A node that hangs holds up to a pool of reads at once, and each wants a second try.
const MOST: u64 = 100 * ONE;

/// What there is at the start, so that the first hang is not waited out.
const START: u64 = 20 * ONE;

impl Budget {
    pub(super) fn new(settings: &ReadSettings) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "validated to lie in 0..=1"
        )]
        let share = (settings.hedge_budget * 1000.0).round() as u64;
        Self { balance: AtomicU64::new(if share == 0 { 0 } else { START }), share }
    }

    /// Pays a read's share in.
    pub(super) fn deposit(&self) {
        let pay = |balance: u64| (balance < MOST).then(|| (balance + self.share).min(MOST));
        // A full budget refuses the share, which is the point.
        let _ = self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay);
    }

    /// Takes out what a second try costs, if it is there.
    pub(super) fn withdraw(&self) -> bool {
        let take = |balance: u64| balance.checked_sub(ONE);
        self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(hedge_budget: f64) -> ReadSettings {
        ReadSettings { hedge_budget, hedge_min_delay: Duration::from_millis(20), ..ReadSettings::default() }
    }

    #[test]
    fn the_delay_follows_the_percentile_but_has_a_floor() {
        let settings = settings(0.05);
        assert_eq!(delay(&settings, None), Duration::from_millis(80));
        assert_eq!(delay(&settings, Some(Duration::from_millis(2))), Duration::from_millis(20));
        assert_eq!(delay(&settings, Some(Duration::from_millis(200))), Duration::from_millis(300));
    }

    #[test]
    fn the_budget_is_kept() {
        let budget = Budget::new(&settings(0.05));
        while budget.withdraw() {}
        let mut tries = 0;
        for _ in 0..10_000 {
            budget.deposit();
            tries += u32::from(budget.withdraw());
        }
        assert_eq!(tries, 500);
    }

    #[test]
    fn savings_are_bounded_and_zero_turns_it_off() {
        let budget = Budget::new(&settings(0.05));
        for _ in 0..100_000 {
            budget.deposit();
        }
        assert_eq!((0..1000).filter(|_| budget.withdraw()).count(), 100);
        let off = Budget::new(&settings(0.0));
        off.deposit();
        assert!(!off.withdraw());
    }
}
