//! A budget for extra requests: hedges and repeats.
//!
//! Each request deposits a share, and each extra one withdraws a whole. When everything is slow or fails, extra
//! requests would multiply the load when the servers can bear it least. The budget limits them to a proportion of the
//! requests, with some savings for a short burst.

use std::sync::atomic::{AtomicU64, Ordering};

/// Savings at the start and at most, in whole extra requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) start: u64,
    pub(super) most: u64,
}

/// The balance of extra requests.
#[derive(Debug)]
pub(super) struct Budget {
    /// In thousandths of an extra request.
    balance: AtomicU64,
    share: AtomicU64,
    limits: Limits,
}

const ONE: u64 = 1000;

impl Budget {
    /// Creates a budget of a proportion of the requests; 0 allows no extra one.
    pub(super) fn new(share: f64, limits: Limits) -> Self {
        let budget = Self { balance: AtomicU64::new(0), share: AtomicU64::new(0), limits };
        budget.set_share(share);
        budget
    }

    /// Changes the proportion; savings stay, so a changed configuration adds none.
    pub(super) fn set_share(&self, share: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "validated to lie in 0..=1"
        )]
        let share = (share * 1000.0).round() as u64;
        let before = self.share.swap(share, Ordering::Relaxed);
        match (before, share) {
            (_, 0) => self.balance.store(0, Ordering::Relaxed),
            (0, _) => self.balance.store(self.limits.start * ONE, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Deposits a request's share.
    pub(super) fn deposit(&self) {
        let (share, most) = (self.share.load(Ordering::Relaxed), self.limits.most * ONE);
        let pay = |balance: u64| (balance < most).then(|| (balance + share).min(most));
        // A full budget rejects the deposit, as intended.
        let _ = self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay);
    }

    /// Withdraws the cost of an extra request, if the balance covers it.
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
    fn repeats_stay_within_the_budget() {
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

    /// Each change of the configuration added the initial savings again.
    #[test]
    fn a_change_of_the_share_keeps_what_was_saved() {
        let budget = Budget::new(0.05, LIMITS);
        while budget.withdraw() {}
        budget.set_share(0.1);
        assert!(!budget.withdraw());
        budget.set_share(0.0);
        budget.set_share(0.1);
        assert!(budget.withdraw());
    }
}
