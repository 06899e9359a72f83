//! The recoveries of primaries: the events after which each began to write.
//!
//! A recovery belongs to a node. Two standbys may be promoted to one timeline, even from one position, and still
//! write two histories. So neither the timeline nor the position identifies the node.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use crate::lsn::Lsn;
use crate::stats::ServerIdentity;

/// One start of a writer: a promotion, a crash recovery, or a clean start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recovery {
    /// The configured address (`host:port`) of the node.
    pub(crate) node: Arc<str>,
    /// The server process that the probe reached.
    pub(crate) server: Option<ServerIdentity>,
    /// The timeline that the node writes.
    pub(crate) timeline: u32,
    /// The position up to which the node recovered; `None` after a clean start.
    pub(crate) end: Option<Lsn>,
    /// The timeline that the same process showed just before, as a standby.
    ///
    /// If present, the promotion was witnessed.
    pub(crate) from: Option<u32>,
    /// `true` if the node was a standby since its previous recovery.
    ///
    /// Then its earlier writes belong to another copy of the data.
    pub(crate) was_standby: bool,
    /// When a probe first showed this recovery.
    pub(crate) at: Instant,
}

/// The last recoveries that the set saw, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Recoveries {
    seen: VecDeque<Recovery>,
    /// Recoveries before this instant are forgotten.
    since: Option<Instant>,
}

/// Recoveries kept.
///
/// They cover hours of crashes, while in-doubt transactions are resolved within seconds.
const LIMIT: usize = 128;

impl Recoveries {
    /// Adds a recovery, and drops the oldest one if the list is full.
    pub(crate) fn push(&mut self, recovery: Recovery) {
        if self.seen.len() == LIMIT
            && let Some(oldest) = self.seen.pop_front()
        {
            self.since = self.since.max(Some(oldest.at));
        }
        self.seen.push_back(recovery);
    }

    /// Returns an empty list that begins at this instant.
    pub(crate) fn since(at: Instant) -> Self {
        Self { seen: VecDeque::new(), since: Some(at) }
    }

    /// Returns `true` if the list holds every recovery seen since this instant.
    pub(crate) fn is_complete_since(&self, at: Instant) -> bool {
        self.since.is_none_or(|since| since < at)
    }

    /// Returns the recoveries, oldest first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Recovery> {
        self.seen.iter()
    }

    /// Returns the last recovery of a node.
    pub(super) fn last_of(&self, node: &str) -> Option<&Recovery> {
        self.iter().rfind(|recovery| &*recovery.node == node)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The list grew with every crash for as long as the program ran.
    #[test]
    fn a_primary_that_crashes_for_ever_fills_no_memory() {
        let start = Instant::now();
        let mut recoveries = Recoveries::default();
        let at = |i: usize| start + Duration::from_secs(i as u64);
        for i in 0..10 * LIMIT {
            recoveries.push(Recovery {
                node: Arc::from("a:5432"),
                server: None,
                timeline: 1,
                end: Some(Lsn::new(i as u64)),
                from: None,
                was_standby: false,
                at: at(i),
            });
        }
        assert_eq!(recoveries.iter().count(), LIMIT);
        assert!(!recoveries.is_complete_since(at(5)), "it says what it forgot");
        assert!(recoveries.is_complete_since(at(9 * LIMIT)));
    }
}
