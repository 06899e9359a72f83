//! A budget for work beyond what was asked for: second tries, and repeats.
//!
//! Each request pays in a share, and each extra one costs a whole. When everything is slow or fails, extra requests
//! would multiply the load exactly where there is too much of it; the budget holds them to a proportion of the
//! requests, with some savings for a short burst.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a budget begins with, and what can be saved at most, in whole extra requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) start: u64,
    pub(super) most: u64,
}

/// What may be spent on extra requests.
#[derive(Debug)]
pub(super) struct Budget {
    /// In thousandths of an extra request.
    balance: AtomicU64,
    share: u64,
    most: u64,
}

const ONE: u64 = 1000;

impl Budget {
    /// Makes a budget of a proportion of the requests; 0 allows no extra one.
    pub(super) fn new(share: f64, limits: Limits) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "validated to lie in 0..=1"
        )]
        let share = (share * 1000.0).round() as u64;
        let start = if share == 0 { 0 } else { limits.start * ONE };
        Self { balance: AtomicU64::new(start), share, most: limits.most * ONE }
    }

    /// Pays a request's share in.
    pub(super) fn deposit(&self) {
        let pay = |balance: u64| (balance < self.most).then(|| (balance + self.share).min(self.most));
        // A full budget refuses the share, which is the point.
        let _ = self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay);
    }

    /// Takes out what an extra request costs, if it is there.
    pub(super) fn withdraw(&self) -> bool {
        let take = |balance: u64| balance.checked_sub(ONE);
        self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { start: 20, most: 100 };

    #[test]
    fn the_budget_is_kept() {
        let budget = Budget::new(0.05, LIMITS);
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
        let budget = Budget::new(0.05, LIMITS);
        for _ in 0..100_000 {
            budget.deposit();
        }
        assert_eq!((0..1000).filter(|_| budget.withdraw()).count(), 100);
        let off = Budget::new(0.0, LIMITS);
        off.deposit();
        assert!(!off.withdraw());
    }
}
