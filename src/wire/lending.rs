//! Counts the checkouts of a session, and records cancelled statements.
//!
//! A cancel request has no answer. It cancels the statement that runs when it arrives, and that may be late. So two
//! rules apply: a session for which a request was made has no next user, and a handle from an earlier checkout makes no
//! request. One number holds both, so a simultaneous request and return have one order: the return sees the request, or
//! the request sees the return.

use std::sync::atomic::{AtomicU64, Ordering};

/// The checkouts of one session: their number, and the events of the present one.
#[derive(Debug, Default)]
pub(crate) struct Lending(AtomicU64);

/// Flag: a statement was cancelled, in this checkout or in an earlier one.
const CANCELLED: u64 = 1;

/// Flag: the present checkout has a handle.
///
/// Without one, a return changes nothing.
const HAS_HANDLE: u64 = 2;

/// Bits below the number of the checkout.
const FLAGS: u32 = 2;

/// The number of a checkout in which a handle was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checkout(u64);

impl Lending {
    /// Returns the present checkout, for a handle that must not outlive it.
    pub(crate) fn checkout(&self) -> Checkout {
        Checkout(self.0.fetch_or(HAS_HANDLE, Ordering::AcqRel) >> FLAGS)
    }

    /// Ends the present checkout, and invalidates its handles.
    pub(crate) fn end_checkout(&self) {
        if self.0.load(Ordering::Acquire) & HAS_HANDLE != 0 {
            self.change(|state| Some((((state >> FLAGS) + 1) << FLAGS) | state & CANCELLED));
        }
    }

    /// Records that a statement of the present checkout is being cancelled.
    pub(crate) fn note_cancelled(&self) {
        self.0.fetch_or(CANCELLED, Ordering::AcqRel);
    }

    /// Records that a statement of a checkout is being cancelled.
    ///
    /// Returns `false` if the checkout is over.
    pub(crate) fn note_cancelled_in(&self, checkout: Checkout) -> bool {
        self.change(|state| (state >> FLAGS == checkout.0).then_some(state | CANCELLED))
    }

    /// Returns `true` if the checkout is the present one.
    pub(crate) fn is_in(&self, checkout: Checkout) -> bool {
        self.0.load(Ordering::Acquire) >> FLAGS == checkout.0
    }

    /// Returns `true` if a statement of the session was cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire) & CANCELLED != 0
    }

    fn change(&self, to: impl Fn(u64) -> Option<u64>) -> bool {
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, to).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_works_until_its_checkout_ends_and_no_longer() {
        let lending = Lending::default();
        let (first, again) = (lending.checkout(), lending.checkout());
        assert_eq!(first, again, "all handles of a checkout are equal");
        lending.end_checkout();
        assert!(!lending.is_in(first) && !lending.note_cancelled_in(first));
        assert!(!lending.is_cancelled(), "the next user's session is as it was");
        let second = lending.checkout();
        assert!(second != first && lending.note_cancelled_in(second));
        assert!(lending.is_cancelled());
    }

    #[test]
    fn a_cancelled_statement_is_not_forgotten_when_its_checkout_ends() {
        let lending = Lending::default();
        let checkout = lending.checkout();
        assert!(lending.note_cancelled_in(checkout));
        lending.end_checkout();
        assert!(lending.is_cancelled());
        let without_handle = Lending::default();
        without_handle.note_cancelled();
        without_handle.end_checkout();
        assert!(without_handle.is_cancelled());
    }
}
