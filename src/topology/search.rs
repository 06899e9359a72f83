//! Since when a primary is being looked for.
//!
//! A search is urgent when something has just changed: a node went down or came back, a role changed. It is not while the
//! same state persists, however long a full primary or a split brain lasts. Hundreds of programs look at the same
//! servers, so each search has an age, and the monitors' pauses grow with it.

use std::time::Duration;

use tokio::time::Instant;

/// The searches for a primary, one after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Search {
    began: Option<Instant>,
    /// When the last search ended, and its age.
    ended: Option<(Instant, Duration)>,
}

/// A search that begins again within this time goes on with the age of the last one.
///
/// Otherwise a primary that misses every second probe would make each of them the first of a new search.
const MEMORY: Duration = Duration::from_secs(10);

impl Search {
    /// Returns since when a primary is being looked for, if it is.
    ///
    /// `changed` says that a node went down or came back, or that a role changed.
    pub(crate) fn on(&mut self, looking: bool, changed: bool, now: Instant) -> Option<Instant> {
        if !looking {
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
