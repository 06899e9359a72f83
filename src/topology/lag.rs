//! How far a replica is behind.
//!
//! `now() - pg_last_xact_replay_timestamp()`, which most tools show, lies twice: it grows on an idle
//! primary though nothing is missing, and it compares the clocks of two machines. Here the primary's own positions are
//! remembered with the instants at which they were seen. A replica that has replayed up to a position misses nothing
//! that is older than that instant; so the newest such instant bounds its lag, whatever the clocks say.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::{Evidence, Lag};
use crate::causal::Lsn;

/// Where the primary was, and when it was seen there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct History {
    samples: VecDeque<(Instant, Lsn)>,
}

/// Two probes a second for a minute: longer than any lag with which a replica may serve by default.
const SAMPLES: usize = 120;

/// Closer samples than this are not kept apart, so that the fast probes of a failover don't shorten the memory.
const SPACING: Duration = Duration::from_millis(250);

impl History {
    /// Remembers where the primary is.
    pub(crate) fn record(&mut self, at: Instant, position: Lsn) {
        match self.samples.back().copied() {
            // The same look again, or one that is older.
            Some((last, _)) if at <= last => return,
            // It has not moved: it was here later still.
            Some((_, lsn)) if lsn == position => {
                self.samples.pop_back();
            }
            Some((last, _)) if self.samples.len() > 1 => {
                let before = self.samples[self.samples.len() - 2].0;
                if last.duration_since(before) < SPACING {
                    self.samples.pop_back();
                }
            }
            _ => {}
        }
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((at, position));
    }

    /// Forgets everything: another primary writes another history.
    pub(crate) fn clear(&mut self) {
        self.samples.clear();
    }

    /// The primary's last known position.
    pub(crate) fn last(&self) -> Option<Lsn> {
        self.samples.back().map(|(_, lsn)| *lsn)
    }

    /// How far a replica is behind, as of now.
    pub(crate) fn lag(&self, replica: &Evidence, now: Instant) -> Lag {
        let bytes = self.last().map(|primary| primary.bytes_after(replica.position));
        let passed = self.samples.iter().rev().find(|(_, lsn)| *lsn <= replica.position);
        let by_history = passed.map(|(at, _)| now.saturating_duration_since(*at));
        // Further behind than is remembered: the node's own clock is the best that there is.
        let by_clock = replica
            .replay_age
            .map(|age| age + now.saturating_duration_since(replica.at))
            .filter(|_| bytes.is_some());
        Lag { bytes, time: by_history.or(by_clock) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::judge::tests::standby;
    use super::*;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn an_idle_primary_makes_no_lag() {
        let start = Instant::now();
        let mut history = History::default();
        for second in 0..3600 {
            history.record(at(start, second), Lsn::new(100));
        }
        let replica =
            Evidence { replay_age: Some(Duration::from_secs(3600)), ..standby(1, 100, at(start, 3599)) };
        let lag = history.lag(&replica, at(start, 3600));
        assert_eq!(lag, Lag { bytes: Some(0), time: Some(Duration::from_secs(1)) });
    }

    #[test]
    fn lag_is_the_time_since_the_primary_was_where_the_replica_is() {
        let start = Instant::now();
        let mut history = History::default();
        for second in 0..30 {
            history.record(at(start, second), Lsn::new(second * 1000));
        }
        let lag = history.lag(&standby(1, 12_500, at(start, 29)), at(start, 30));
        assert_eq!(lag, Lag { bytes: Some(16_500), time: Some(Duration::from_secs(18)) });
    }

    #[test]
    fn further_back_than_is_remembered_the_clock_tells() {
        let start = Instant::now();
        let mut history = History::default();
        history.record(at(start, 100), Lsn::new(1000));
        let replica =
            Evidence { replay_age: Some(Duration::from_secs(40)), ..standby(1, 10, at(start, 100)) };
        assert_eq!(history.lag(&replica, at(start, 102)).time, Some(Duration::from_secs(42)));
        let replica = Evidence { replay_age: None, ..replica };
        assert_eq!(history.lag(&replica, at(start, 102)).time, None);
    }

    #[test]
    fn without_a_primary_nothing_is_known() {
        let start = Instant::now();
        let replica = Evidence { replay_age: Some(Duration::ZERO), ..standby(1, 10, start) };
        assert_eq!(History::default().lag(&replica, start), Lag { bytes: None, time: None });
    }

    #[test]
    fn fast_probes_do_not_shorten_the_memory() {
        let start = Instant::now();
        let mut history = History::default();
        for tick in 0..1200_u64 {
            history.record(start + Duration::from_millis(25 * tick), Lsn::new(tick));
        }
        let replica = standby(1, 12, start + Duration::from_secs(30));
        let lag = history.lag(&replica, start + Duration::from_secs(30)).time.expect("still remembered");
        assert!(lag >= Duration::from_millis(29_700) && lag <= Duration::from_millis(30_000), "{lag:?}");
    }
}
