//! The searches for a primary, and their ages.
//!
//! A search is urgent just after a change: a node went down or came back, or a role changed. It is not urgent while
//! the same state persists, however long the primary is full or the split brain lasts. Hundreds of programs probe
//! the same servers. So each search has an age, and the monitors' pauses grow with it.
//!
//! A search also begins when the primary's answer to a probe is late. The other monitors then look for a promotion
//! before the primary is known to be down. Such an alarm is often false, so it may begin one search in ten seconds on average.

use std::time::Duration;

use tokio::time::Instant;

/// The searches for a primary, one after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Search {
    began: Option<Instant>,
    /// The end of the last search, and its age.
    ended: Option<(Instant, Duration)>,
    /// When the alarms so far no longer count against their limit.
    alarms_until: Option<Instant>,
}

/// A search that begins again within this time continues with the last one's age.
///
/// Otherwise a primary that misses every second probe would start a new search with each of them.
const MEMORY: Duration = Duration::from_secs(10);

/// Alarms allowed at once.
///
/// One false alarm must not hide the next hang.
const ALARM_BURST: u32 = 3;

/// Time after which one more alarm is allowed.
const ALARM_REFILL: Duration = Duration::from_secs(10);

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

    /// Returns `true` if a late answer of the primary may begin a search.
    ///
    /// A late answer is no proof. A primary that is often late must not make all monitors probe fast all the time.
    pub(crate) fn allows_alarm(&mut self, now: Instant) -> bool {
        let counted = self.alarms_until.map_or(now, |until| until.max(now));
        let allowed = counted.saturating_duration_since(now) <= ALARM_REFILL * (ALARM_BURST - 1);
        if allowed {
            self.alarms_until = Some(counted + ALARM_REFILL);
        }
        allowed
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

    #[test]
    fn three_alarms_are_allowed_at_once_and_one_more_every_ten_seconds() {
        let (mut search, now) = (Search::default(), Instant::now());
        let mut allowed = |after| search.allows_alarm(now + secs(after));
        assert_eq!([0, 1, 2, 3, 9].map(&mut allowed), [true, true, true, false, false]);
        assert_eq!([10, 11, 20, 21].map(&mut allowed), [true, false, true, false]);
        assert_eq!([100, 100, 100, 100].map(&mut allowed), [true, true, true, false]);
    }
}
