//! The highest positions that were seen on each timeline.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Lsn;

/// The highest position on each of a few timelines.
///
/// It is a join-semilattice: [`merge`](Self::merge) is commutative, associative and idempotent. So it does not matter in
/// which order, or how often, positions arrive. After a failover there are two entries, until the older one is known to
/// be part of the newer history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Positions {
    /// By timeline, highest first; unused entries are zero.
    entries: [(u32, Lsn); Positions::MAX],
}

impl Positions {
    /// Timelines kept; if there are more, the lowest one is dropped.
    pub(crate) const MAX: usize = 4;

    /// Returns the one position.
    #[cfg(test)]
    pub(crate) fn one(timeline: u32, position: Lsn) -> Self {
        let mut one = Self::default();
        one.record(timeline, position);
        one
    }

    /// Adds a position, unless a higher one of its timeline is known.
    pub(crate) fn record(&mut self, timeline: u32, position: Lsn) {
        if position == Lsn::default() {
            return;
        }
        for i in 0..Self::MAX {
            let (of, known) = &mut self.entries[i];
            if *of == timeline && *known != Lsn::default() {
                *known = position.max(*known);
                return;
            }
            if *known == Lsn::default() || *of < timeline {
                self.entries[i..].rotate_right(1);
                self.entries[i] = (timeline, position);
                return;
            }
        }
    }

    /// Adds all positions of another one.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (timeline, position) in other.iter() {
            self.record(timeline, position);
        }
    }

    /// Keeps the positions that fulfil a condition.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(u32, Lsn) -> bool) {
        for (timeline, position) in std::mem::take(self).iter() {
            if keep(timeline, position) {
                self.record(timeline, position);
            }
        }
    }

    /// Returns the timelines with their positions, highest timeline first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, Lsn)> + '_ {
        self.entries.iter().copied().filter(|(_, position)| *position != Lsn::default())
    }

    /// Returns `true` if there is no position.
    pub(crate) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// The positions that a session has seen, recorded by its connections.
#[derive(Debug, Default)]
pub(crate) struct PositionLog {
    seen: Mutex<Seen>,
    /// `true` if the role may not ask for a position.
    refused: AtomicBool,
}

#[derive(Debug, Default)]
struct Seen {
    /// The cluster of the positions, once it is known.
    cluster: Option<u64>,
    positions: Positions,
    /// The timeline of something that was seen and whose position never arrived.
    gap: Option<u32>,
}

impl PositionLog {
    /// Creates a log that has seen some positions of a cluster already.
    pub(crate) fn new(cluster: u64, positions: Positions) -> Self {
        let seen = Mutex::new(Seen { cluster: Some(cluster), positions, gap: None });
        Self { seen, refused: AtomicBool::new(false) }
    }

    /// Returns the positions seen until now, and their cluster if it is known.
    pub(crate) fn seen(&self) -> (Option<u64>, Positions) {
        let seen = self.lock();
        (seen.cluster, seen.positions)
    }

    /// Sets the cluster of later positions, unless another one's were seen.
    ///
    /// A set may adopt another cluster, in which the positions of the first one mean nothing.
    pub(crate) fn begin_in(&self, cluster: Option<u64>) {
        let mut seen = self.lock();
        if seen.positions.is_empty() {
            seen.cluster = cluster.or(seen.cluster);
        }
    }

    /// Adds a position.
    pub(crate) fn record(&self, timeline: u32, position: Lsn) {
        self.lock().positions.record(timeline, position);
    }

    /// Adds the positions of another log, which were seen in the same cluster.
    pub(crate) fn absorb(&self, other: &Self) {
        let positions = other.positions();
        self.lock().positions.merge(&positions);
    }

    /// Adds all positions of a token; returns `false` if it is of another cluster.
    ///
    /// `default` is the cluster of a log that has none yet.
    pub(crate) fn merge(&self, cluster: u64, positions: &Positions, default: Option<u64>) -> bool {
        let mut seen = self.lock();
        let is_own = seen.cluster.or(default).is_none_or(|own| own == cluster);
        if is_own {
            seen.cluster = Some(cluster);
            seen.positions.merge(positions);
        }
        is_own
    }

    /// Keeps the positions that fulfil a condition.
    pub(crate) fn retain(&self, keep: impl FnMut(u32, Lsn) -> bool) {
        self.lock().positions.retain(keep);
    }

    /// Forgets everything.
    pub(crate) fn forget(&self) {
        *self.lock() = Seen::default();
        self.refused.store(false, Ordering::Release);
    }

    /// Returns the positions seen until now.
    pub(crate) fn positions(&self) -> Positions {
        self.lock().positions
    }

    /// Records that a position never arrived, because the connection ended.
    pub(crate) fn note_gap(&self, timeline: u32) {
        let mut seen = self.lock();
        // The older one decides if a failover came in between.
        seen.gap = Some(seen.gap.map_or(timeline, |gap| gap.min(timeline)));
    }

    /// Returns the timeline of something whose position never arrived.
    pub(crate) fn gap(&self) -> Option<u32> {
        self.lock().gap
    }

    /// Closes the gap by a later position of its timeline, which covers it.
    pub(crate) fn close_gap(&self, timeline: u32, position: Lsn) {
        let mut seen = self.lock();
        seen.positions.record(timeline, position);
        seen.gap = seen.gap.filter(|gap| *gap != timeline);
    }

    /// Records that the role may not ask for a position.
    pub(crate) fn refuse(&self) {
        self.refused.store(true, Ordering::Release);
    }

    /// Returns `true` if the role may not ask for a position.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // No code under this lock panics half-way through a change.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A log that some options may carry.
///
/// Two are equal if they are the same log, or none.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedLog(pub(crate) Option<Arc<PositionLog>>);

impl SharedLog {
    /// Returns no log.
    pub(crate) const fn none() -> Self {
        Self(None)
    }
}

impl PartialEq for SharedLog {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_ref().map(Arc::as_ptr) == other.0.as_ref().map(Arc::as_ptr)
    }
}

impl Eq for SharedLog {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn positions() -> impl Strategy<Value = Positions> {
        prop::collection::vec((0_u32..7, 0_u64..5), 0..8).prop_map(|entries| {
            let mut all = Positions::default();
            for (timeline, position) in entries {
                all.record(timeline, Lsn::new(position));
            }
            all
        })
    }

    fn merged(a: Positions, b: &Positions) -> Positions {
        let mut all = a;
        all.merge(b);
        all
    }

    #[test]
    fn the_highest_position_of_each_timeline_counts() {
        let mut seen = Positions::default();
        for (timeline, position) in [(1, 10), (3, 5), (1, 30), (1, 20), (3, 4)] {
            seen.record(timeline, Lsn::new(position));
        }
        assert_eq!(seen.iter().collect::<Vec<_>>(), [(3, Lsn::new(5)), (1, Lsn::new(30))]);
        seen.retain(|timeline, _| timeline == 1);
        assert_eq!(seen, Positions::one(1, Lsn::new(30)));
    }

    /// The set adopted another cluster, and the positions of the first one counted in it.
    #[test]
    fn positions_stay_with_the_cluster_in_which_they_were_seen() {
        let (one, position) = (Positions::one(1, Lsn::new(30)), |of: &PositionLog| of.seen().1);
        let log = PositionLog::default();
        log.begin_in(None);
        log.begin_in(Some(7));
        log.record(1, Lsn::new(20));
        log.begin_in(Some(8));
        assert_eq!(log.seen().0, Some(7));
        assert!(!log.merge(8, &one, Some(8)), "the set has another cluster now");
        assert!(log.merge(7, &one, Some(8)));
        assert_eq!(position(&log), one);

        log.forget();
        log.begin_in(Some(8));
        assert_eq!(log.seen(), (Some(8), Positions::default()));
        let new = PositionLog::default();
        assert!(!new.merge(7, &one, Some(8)));
        assert!(new.merge(8, &one, None), "the first token decides while nothing is known");
        assert_eq!(new.seen(), (Some(8), one));
    }

    proptest! {
        #[test]
        fn neither_order_nor_repetition_matters(a in positions(), b in positions(), c in positions()) {
            prop_assert_eq!(merged(a, &b), merged(b, &a));
            prop_assert_eq!(merged(merged(a, &b), &c), merged(a, &merged(b, &c)));
            prop_assert_eq!(merged(a, &a), a);
            prop_assert!(a.iter().is_sorted_by(|x, y| x.0 > y.0));
        }
    }
}
