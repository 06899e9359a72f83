//! Replication lag of a replica.
//!
//! Most tools show `now() - pg_last_xact_replay_timestamp()`, which is wrong in two ways. It grows on an idle
//! primary although nothing is missing, and it compares the clocks of two machines.
//!
//! This module remembers the primary's own positions, each with the instant of its probe. A replica that has
//! replayed up to a position misses nothing older than that instant. So the newest such instant bounds the lag,
//! whatever the clocks show. A replica behind all remembered positions may lag by any time, so its lag is
//! unknown.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::{Lag, Observation};
use crate::lsn::Lsn;

/// Positions of the primary, each with the instant at which a probe saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PrimaryPositions {
    samples: VecDeque<(Instant, Lsn)>,
    /// The timeline of the newest position.
    timeline: u32,
}

/// Samples kept.
///
/// Older ones are sparser, back to the first, so the lag is overstated by a few percent.
const SAMPLES: usize = 240;

/// Minimum time between two samples.
///
/// Otherwise the fast probes of a failover would thin out the record.
const SPACING: Duration = Duration::from_millis(250);

/// Silence of the primary's monitor after which standbys extend the record.
///
/// Their received positions then count.
const SILENCE: Duration = Duration::from_secs(1);

impl PrimaryPositions {
    /// Records the position of the primary.
    ///
    /// `waited` is when the monitor last asked the node and found it still in recovery. Up to its fork, a new
    /// primary shares the history of the old one. Until `waited`, nothing was written after the fork.
    pub(crate) fn follow(&mut self, primary: &Observation, waited: Option<Instant>) {
        if primary.timeline != self.timeline {
            match primary.recovered_to {
                Some(end) => {
                    self.samples.retain(|(_, lsn)| *lsn <= end);
                    if let Some(waited) = waited {
                        self.record(waited, end);
                    }
                }
                None => self.clear(),
            }
            self.timeline = primary.timeline;
        }
        self.record(primary.at, primary.position);
    }

    /// Extends the record by a standby's received position.
    ///
    /// The record needs this while the primary's monitor has no session.
    ///
    /// The primary is at least at that position, and may be further. If a standby is cut off and does not
    /// notice, the record understates the lag until its `wal_receiver_timeout`.
    pub(crate) fn follow_standby(&mut self, standby: &Observation) {
        let Some(received) = standby.received.filter(|_| standby.streaming) else { return };
        let silent = |(at, lsn): &(Instant, Lsn)| {
            standby.at.saturating_duration_since(*at) >= SILENCE && received >= *lsn
        };
        if self.samples.back().is_some_and(silent) {
            self.record(standby.at, received);
        }
    }

    fn record(&mut self, at: Instant, position: Lsn) {
        match self.samples.back().copied() {
            // The same probe again, or an older one.
            Some((last, _)) if at <= last => return,
            // The primary has not moved, so the position also holds at the later instant.
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
            self.thin_out(at);
        }
        self.samples.push_back((at, position));
    }

    /// Removes the sample whose neighbours are closest together for their age.
    fn thin_out(&mut self, now: Instant) {
        let gap = |place: &usize| {
            let ((before, _), (after, _)) = (self.samples[place - 1], self.samples[place + 1]);
            let age = now.saturating_duration_since(after).as_secs_f64();
            after.saturating_duration_since(before).as_secs_f64() / age.max(f64::MIN_POSITIVE)
        };
        let least = (1..self.samples.len() - 1).min_by(|a, b| gap(a).total_cmp(&gap(b)));
        if let Some(place) = least {
            self.samples.remove(place);
        }
    }

    /// Returns the timeline of the newest sample.
    pub(crate) fn timeline(&self) -> u32 {
        self.timeline
    }

    /// Forgets all samples, because another primary writes another history.
    pub(crate) fn clear(&mut self) {
        self.samples.clear();
    }

    /// Returns the primary's last known position.
    pub(crate) fn last(&self) -> Option<Lsn> {
        self.samples.back().map(|(_, lsn)| *lsn)
    }

    /// Returns the lag of a replica as of `now`.
    pub(crate) fn lag(&self, replica: &Observation, now: Instant) -> Lag {
        let bytes = self.last().map(|primary| primary.bytes_after(replica.position));
        let passed = self.samples.iter().rev().find(|(_, lsn)| *lsn <= replica.position);
        Lag { bytes, time: passed.map(|(at, _)| now.saturating_duration_since(*at)) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::roles::tests::standby;
    use super::*;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn an_idle_primary_makes_no_lag() {
        let start = Instant::now();
        let mut history = PrimaryPositions::default();
        for second in 0..3600 {
            history.record(at(start, second), Lsn::new(100));
        }
        let replica = standby(1, 100, at(start, 3599));
        let lag = history.lag(&replica, at(start, 3600));
        assert_eq!(lag, Lag { bytes: Some(0), time: Some(Duration::from_secs(1)) });
    }

    #[test]
    fn lag_is_the_time_since_the_primary_was_where_the_replica_is() {
        let start = Instant::now();
        let mut history = PrimaryPositions::default();
        for second in 0..30 {
            history.record(at(start, second), Lsn::new(second * 1000));
        }
        let lag = history.lag(&standby(1, 12_500, at(start, 29)), at(start, 30));
        assert_eq!(lag, Lag { bytes: Some(16_500), time: Some(Duration::from_secs(18)) });
    }

    /// A clock that was half an hour slow made such a replica fresh: "0 ns behind".
    #[test]
    fn the_lag_before_the_record_begins_is_unknown() {
        let start = Instant::now();
        let mut history = PrimaryPositions::default();
        history.record(at(start, 100), Lsn::new(1000));
        assert_eq!(
            history.lag(&standby(1, 10, at(start, 100)), at(start, 102)),
            Lag { bytes: Some(990), time: None }
        );
    }

    #[test]
    fn without_a_primary_the_lag_is_unknown() {
        let start = Instant::now();
        assert_eq!(
            PrimaryPositions::default().lag(&standby(1, 10, start), start),
            Lag { bytes: None, time: None }
        );
    }

    /// Replicas that missed nothing were excluded for a part of each interval: 700 ms were accepted as
    /// `max_lag`.
    #[test]
    fn a_healthy_replica_stays_within_the_smallest_max_lag() {
        let probe = crate::config::ProbeSettings::default();
        let (limit, took) = (crate::config::smallest_max_lag(&probe), probe.timeout / 6);
        let round = probe.interval + took;
        let start = Instant::now();
        let written = |at: Instant| Lsn::new(u64::try_from((at - start).as_millis()).expect("small"));
        let worst = (0..20_u32).map(|phase| {
            let mut history = PrimaryPositions::default();
            let mut worst = Duration::ZERO;
            for number in 0..20 {
                // Each monitor probes once a round. An answer dates from its probe, and counts until the next
                // one.
                let (primary, replica) =
                    (start + round * number, start + round * number + round * phase / 20);
                history.record(primary, written(primary));
                let seen = standby(1, written(replica).as_u64(), replica);
                let until = replica + round + took;
                if number > 0 {
                    let known = history.lag(&seen, until).time.expect("known");
                    worst = worst.max(known);
                }
            }
            worst
        });
        let worst = worst.max().expect("some");
        assert!(worst <= limit, "{worst:?}, {limit:?}");
        assert!(worst > Duration::from_millis(700), "{worst:?}");
    }

    #[test]
    fn the_record_reaches_back_to_its_begin_and_overstates_little() {
        let start = Instant::now();
        let mut history = PrimaryPositions::default();
        for half_second in 0..20_000_u64 {
            history.record(start + Duration::from_millis(500 * half_second), Lsn::new(half_second));
        }
        assert!(history.samples.len() <= SAMPLES);
        let now = at(start, 10_000);
        for behind in [1_u64, 10, 100, 1000, 9_999] {
            let replica = standby(1, (10_000 - behind) * 2, now);
            let lag = history.lag(&replica, now).time.expect("remembered").as_secs();
            assert!((behind..=behind + behind / 10 + 1).contains(&lag), "{behind} s: {lag} s");
        }
    }

    /// Each switchover erased what a replica had missed, and the lag then relied on another machine's clock.
    #[test]
    fn a_promotion_keeps_what_the_histories_share() {
        let start = Instant::now();
        let mut history = PrimaryPositions::default();
        history.follow(&Observation::primary(1, 1000, at(start, 1)), None);
        history.follow(&Observation::primary(1, 2000, at(start, 2)), None);
        history.follow(&Observation::primary(1, 3000, at(start, 3)), None);
        // The node was still in recovery six seconds later, so no earlier write counts.
        let promoted = |position, seconds| Observation {
            recovered_to: Some(Lsn::new(2500)),
            ..Observation::primary(2, position, at(start, seconds))
        };
        history.follow(&promoted(2600, 10), Some(at(start, 9)));
        let lag = |position, seconds| history.lag(&standby(1, position, start), at(start, seconds)).time;
        assert_eq!(lag(2600, 10), Some(Duration::ZERO));
        assert_eq!(lag(2500, 10), Some(Duration::from_secs(1)), "it misses what came after the promotion");
        assert_eq!(lag(2500, 16), Some(Duration::from_secs(7)), "and more, until it is connected again");
        assert_eq!(lag(2400, 10), Some(Duration::from_secs(8)), "from before");
        assert_eq!(lag(900, 10), None);
    }

    /// After `max_lag`, a primary without a slot for its monitor excluded every replica: 6 of 6 reads failed.
    #[test]
    fn standbys_extend_the_record_while_the_primary_rejects_its_monitor() {
        let start = Instant::now();
        let mut history = PrimaryPositions::default();
        history.follow(&Observation::primary(1, 1000, start), None);
        for second in 1..60 {
            history.follow_standby(&standby(1, 1000 + second * 10, at(start, second)));
        }
        let lag = history.lag(&standby(1, 1590, at(start, 59)), at(start, 60));
        assert_eq!(lag, Lag { bytes: Some(0), time: Some(Duration::from_secs(1)) });
        let behind = history.lag(&standby(1, 1300, at(start, 59)), at(start, 60));
        assert_eq!(behind.time, Some(Duration::from_secs(30)));
        // A standby that is not connected, or is behind the record, proves nothing about the primary.
        let before = history.clone();
        history.follow_standby(&Observation { streaming: false, ..standby(1, 1590, at(start, 70)) });
        history.follow_standby(&standby(1, 1500, at(start, 70)));
        assert_eq!(history, before);
    }

    #[test]
    fn fast_probes_do_not_shorten_the_record() {
        let start = Instant::now();
        let mut history = PrimaryPositions::default();
        for tick in 0..1200_u64 {
            history.record(start + Duration::from_millis(25 * tick), Lsn::new(tick));
        }
        let replica = standby(1, 12, start + Duration::from_secs(30));
        let lag = history.lag(&replica, start + Duration::from_secs(30)).time.expect("still remembered");
        assert!(lag >= Duration::from_millis(29_700) && lag <= Duration::from_millis(30_000), "{lag:?}");
    }
}
