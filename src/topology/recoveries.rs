//! The recoveries of primaries: how each of them came to write.
//!
//! A recovery belongs to a node. Two standbys may be promoted to one timeline, even from one position, and yet write two
//! histories; so neither the timeline nor the position tells whose recovery it is.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use crate::lsn::Lsn;
use crate::stats::ServerIdentity;

/// How a node came to write: by a promotion, by crash recovery, or by a clean start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recovery {
    /// The configured address (`host:port`) of the node.
    pub(crate) node: Arc<str>,
    /// The server process that was seen.
    pub(crate) server: Option<ServerIdentity>,
    /// The timeline that it writes.
    pub(crate) timeline: u32,
    /// Up to where it recovered; `None` after a clean start.
    pub(crate) end: Option<Lsn>,
    /// The timeline that the same server process showed as a standby just before: a promotion that was witnessed.
    pub(crate) from: Option<u32>,
    /// It was seen as a standby since its recovery before: what it did before that belongs to another copy of the data.
    pub(crate) was_standby: bool,
    /// When it was first seen.
    pub(crate) at: Instant,
}

/// The last recoveries that the set saw, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Recoveries {
    seen: VecDeque<Recovery>,
    /// Recoveries of before are forgotten.
    since: Option<Instant>,
}

/// Recoveries that are remembered. In-doubt transactions are resolved within seconds; this is hours of crashes.
const LIMIT: usize = 128;

impl Recoveries {
    /// Adds one; the oldest one is forgotten when there are too many.
    pub(crate) fn push(&mut self, recovery: Recovery) {
        if self.seen.len() == LIMIT
            && let Some(oldest) = self.seen.pop_front()
        {
            self.since = self.since.max(Some(oldest.at));
        }
        self.seen.push_back(recovery);
    }

    /// Returns an empty list of what was seen since then.
    pub(crate) fn since(at: Instant) -> Self {
        Self { seen: VecDeque::new(), since: Some(at) }
    }

    /// Returns `true` if every recovery that was seen since then is in the list.
    pub(crate) fn is_complete_since(&self, at: Instant) -> bool {
        self.since.is_none_or(|since| since < at)
    }

    /// Returns the recoveries, the oldest first.
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
