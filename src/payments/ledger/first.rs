//! The first difference of a file, though several workers replay its lines.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Keeps the difference at the lowest line.
///
/// Workers go on with the lines before it and skip those after it. So the result is the first one in the file, and not
/// the first one found.
#[derive(Debug)]
pub(super) struct First<T> {
    line: AtomicU64,
    found: Mutex<Option<(u64, T)>>,
}

impl<T> First<T> {
    pub(super) fn new() -> Self {
        Self { line: AtomicU64::new(u64::MAX), found: Mutex::new(None) }
    }

    /// Returns `true` if a line comes after the difference.
    pub(super) fn is_before(&self, line: u64) -> bool {
        self.line.load(Ordering::Acquire) < line
    }

    pub(super) fn put(&self, line: u64, found: T) {
        let mut held = self.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if held.as_ref().is_none_or(|(earlier, _)| line < *earlier) {
            *held = Some((line, found));
            self.line.store(line, Ordering::Release);
        }
    }

    pub(super) fn into_inner(self) -> Option<T> {
        let found = self.found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        found.map(|(_, found)| found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_differences_the_lowest_line_is_kept() {
        let first = First::new();
        assert!(!first.is_before(u64::MAX));
        for (line, what) in [(7, "seven"), (9, "nine"), (3, "three"), (5, "five")] {
            first.put(line, what);
        }
        assert!(first.is_before(4) && !first.is_before(3));
        assert_eq!(first.into_inner(), Some("three"));
    }
}
