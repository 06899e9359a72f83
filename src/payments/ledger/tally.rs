//! Counts of the reads of a replay.

use std::collections::BTreeMap;
use std::time::Duration;

use super::access::ReadBack;
use crate::Role;

/// The shortest wait that counts as one.
///
/// A read of a replica takes a millisecond or two. A wait of this length is as long as some of these reads.
const WAIT: Duration = Duration::from_millis(5);

/// The reads of a replay.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// All balances, by the node that served them.
    pub(super) by_node: BTreeMap<String, u64>,
    /// Balances that a replica served after a write.
    pub(super) by_replicas: u64,
    /// Balances that the primary served after a write.
    pub(super) by_primary: u64,
    /// Balances of a replica that had not replayed the write.
    pub(super) stale: u64,
    /// The wait of each read after a write.
    waits: Vec<Duration>,
}

impl Tally {
    /// Counts a read.
    pub(super) fn count(&mut self, read: &ReadBack) {
        *self.by_node.entry(read.node.clone()).or_default() += 1;
    }

    /// Counts a read after a write.
    pub(super) fn count_after_write(&mut self, read: &ReadBack) {
        self.count(read);
        match read.role {
            Role::Replica => self.by_replicas += 1,
            _ => self.by_primary += 1,
        }
        self.waits.push(read.wait);
    }

    /// Returns the waits of all reads after a write.
    pub(super) fn waits(&self) -> Waits {
        let mut sorted = self.waits.clone();
        sorted.sort_unstable();
        let rank = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        let waited = sorted.iter().filter(|wait| **wait > WAIT).count() as u64;
        Waits { waited, p50: rank(50), p99: rank(99), max: rank(100) }
    }
}

/// The times that reads waited for a node to reach their session's position.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Waits {
    /// Number of waits longer than [`WAIT`].
    pub(super) waited: u64,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    pub(super) max: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payments::Balance;

    #[test]
    fn waits_are_ranked_and_short_ones_do_not_count() {
        let ms = Duration::from_millis;
        let mut tally = Tally::default();
        assert_eq!(tally.waits(), Waits { waited: 0, p50: ms(0), p99: ms(0), max: ms(0) });
        for wait in (0..100).rev() {
            let (node, role) = if wait % 4 == 0 { ("b", Role::Primary) } else { ("a", Role::Replica) };
            let node = node.to_owned();
            tally.count_after_write(&ReadBack { balance: Balance::default(), node, role, wait: ms(wait) });
        }
        assert_eq!(tally.waits(), Waits { waited: 94, p50: ms(49), p99: ms(98), max: ms(99) });
        assert_eq!((tally.by_replicas, tally.by_primary, tally.by_node["a"]), (75, 25, 75));
    }
}
