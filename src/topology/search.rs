//! The searches for a primary, and their ages.
//!
//! A search is urgent just after a change: a node went down or came back, or a role changed. It is not urgent while
//! the same state persists, however long the primary is full or the split brain lasts. Hundreds of programs probe
//! the same servers. So each search has an age, and the monitors' pauses grow with it.

use std::time::Duration;

use tokio::time::Instant;

/// The searches for a primary, one after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Search {
    began: Option<Instant>,
    /// The end of the last search, and its age.
    ended: Option<(Instant, Duration)>,
}

/// A search that begins again within this time continues with the last one's age.
///
/// Otherwise a primary that misses every second probe would start a new search with each of them.
const MEMORY: Duration = Duration::from_secs(10);

impl Search {
    /// Returns the start of the current search for a primary, if there is one.
    ///
    /// `changed` is `true` if a node went down or came back, or a role changed.
    pub(crate) fn on(&mut self, is_searching: bool, changed: bool, now: Instant) -> Option<Instant> {
        if !is_searching {
            if let Some(began) = self.began.take() {
                self.ended = Some((now, now.saturating_duration_since(began)));
            }
            return None;
        }
        let began = match (self.began, self.ended) {
            _ if changed => now,
            (Some(began), _) => began,
            (None, Some((ended, age))) if now.saturating_duration_since(ended) < MEMORY => {
                now.checked_sub(age).unwrap_or(now)
            }
            (None, _) => now,
        };
        self.began = Some(began);
        self.began
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_search_ages_until_something_changes() {
        let (mut search, now) = (Search::default(), Instant::now());
        assert_eq!(search.on(false, false, now), None);
        assert_eq!(search.on(true, false, now), Some(now));
        assert_eq!(search.on(true, false, now + secs(60)), Some(now));
        assert_eq!(search.on(true, true, now + secs(61)), Some(now + secs(61)));
    }

    #[test]
    fn a_search_that_begins_again_soon_is_as_old_as_the_last_one_was() {
        let (mut search, now) = (Search::default(), Instant::now() + secs(100));
        search.on(true, false, now);
        search.on(false, false, now + secs(5));
        assert_eq!(search.on(true, false, now + secs(6)), Some(now + secs(1)));
        search.on(false, false, now + secs(7));
        assert_eq!(search.on(true, false, now + secs(30)), Some(now + secs(30)));
    }
}
