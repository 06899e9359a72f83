//! Decides if the present history contains a position of an earlier one (pure).
//!
//! A promotion begins a new timeline at the position up to which the new primary had recovered, the *fork*. What the
//! timeline before it had up to the fork is part of the new history, and what it had after the fork is lost.
//!
//! The fork and the parent of a timeline are in its history file, which an ordinary role may not read. So they come from
//! what the set sees:
//!
//! * The fork is `pg_last_wal_replay_lsn()` of the promoted server. After a restart that is another position. It is the
//!   fork if a monitor saw the promotion, or if the server still knows what it received as a standby
//!   (`pg_last_wal_receive_lsn()`), which a restart forgets as well.
//! * The parent is the highest timeline that the server was proven to follow before. That is a lower bound: the server
//!   may have followed a later one that no monitor saw.
//!
//! A position after a fork is lost, whatever the parent is. A position before it is contained only if the parent is
//! known. Otherwise the answer is "unknown".

use crate::lsn::Lsn;

/// The timelines from which the present history descends, as far as the set knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ancestry {
    /// The present timeline; 0 if no primary was seen yet.
    pub(super) timeline: u32,
    /// In ascending order of the timelines.
    pub(super) forks: Vec<TimelineFork>,
}

/// The beginning of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimelineFork {
    pub(super) timeline: u32,
    /// The position up to which this history is that of the parent.
    pub(super) fork: Lsn,
    /// The timeline that it descends from, at least.
    pub(super) parent: Option<u32>,
}

/// The relation of a position to the present history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Containment {
    /// The present history contains the position, or will once it has reached it.
    Contained,
    /// The position was written to a history that was abandoned at the fork.
    Lost {
        /// The last position that the two histories share, at most.
        fork: Lsn,
    },
    /// No node has shown the timeline yet.
    Unseen,
    /// A step of the history was not observed.
    Unknown,
}

impl Ancestry {
    /// Returns the present timeline; 0 if no primary was seen yet.
    pub(crate) fn timeline(&self) -> u32 {
        self.timeline
    }

    /// Returns the relation of a position to the present history.
    pub(crate) fn containment(&self, timeline: u32, position: Lsn) -> Containment {
        if timeline > self.timeline {
            return Containment::Unseen;
        }
        let mut child = self.timeline;
        while child != timeline {
            let Some(begin) = self.forks.iter().find(|fork| fork.timeline == child) else {
                return Containment::Unknown;
            };
            if position > begin.fork {
                return Containment::Lost { fork: begin.fork };
            }
            // The second timeline can only descend from the first.
            let parent = if child == 2 { Some(1) } else { begin.parent };
            match parent {
                Some(parent) if parent >= timeline && !self.may_be_lost(parent, child, position) => {
                    child = parent;
                }
                _ => return Containment::Unknown,
            }
        }
        Containment::Contained
    }

    /// Returns `true` if a known timeline between the two lost the position.
    ///
    /// The parent is a lower bound, so such a timeline may be the true parent.
    fn may_be_lost(&self, parent: u32, child: u32, position: Lsn) -> bool {
        let between = |fork: &&TimelineFork| parent < fork.timeline && fork.timeline < child;
        parent >= child || self.forks.iter().filter(between).any(|other| position > other.fork)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Timelines with their forks and parents; the last one is the present one.
    fn ancestry(forks: &[(u32, u64, Option<u32>)]) -> Ancestry {
        let fork = |(timeline, fork, parent): &(u32, u64, Option<u32>)| TimelineFork {
            timeline: *timeline,
            fork: Lsn::new(*fork),
            parent: *parent,
        };
        let timeline = forks.last().map_or(1, |(timeline, ..)| *timeline);
        Ancestry { timeline, forks: forks.iter().map(fork).collect() }
    }

    const LOST_AT_400: Containment = Containment::Lost { fork: Lsn::new(400) };

    #[test]
    fn a_position_is_contained_up_to_the_fork_and_lost_after_it() {
        use Containment::{Contained, Lost, Unknown, Unseen};
        let first = &[][..];
        let second = &[(2, 400, Some(1))][..];
        let unseen_promotion = &[(2, 400, None)][..];
        let third = &[(2, 400, Some(1)), (3, 900, Some(2))][..];
        // Both standbys of the first timeline were promoted, and the third timeline goes on.
        let sibling = &[(2, 400, Some(1)), (3, 900, Some(1))][..];
        let gap = &[(4, 900, Some(3))][..];
        for (forks, timeline, position, expected) in [
            (first, 1, 500, Contained),
            (first, 2, 100, Unseen),
            (second, 2, 9000, Contained),
            (second, 1, 400, Contained),
            (second, 1, 401, LOST_AT_400),
            (second, 3, 1, Unseen),
            (unseen_promotion, 1, 400, Contained),
            (unseen_promotion, 1, 401, LOST_AT_400),
            (third, 2, 900, Contained),
            (third, 2, 901, Lost { fork: Lsn::new(900) }),
            (third, 1, 400, Contained),
            (third, 1, 401, LOST_AT_400),
            (third, 1, 901, Lost { fork: Lsn::new(900) }),
            // The parent is a lower bound, so the second timeline may be an ancestor or not.
            (sibling, 2, 450, Unknown),
            (sibling, 2, 901, Lost { fork: Lsn::new(900) }),
            (sibling, 1, 450, Unknown),
            (sibling, 1, 400, Contained),
            (gap, 3, 900, Contained),
            (gap, 2, 100, Unknown),
            (gap, 1, 901, Lost { fork: Lsn::new(900) }),
        ] {
            let found = ancestry(forks).containment(timeline, Lsn::new(position));
            assert_eq!(found, expected, "{forks:?}: {position} on timeline {timeline}");
        }
    }

    #[test]
    fn a_set_that_has_seen_no_primary_knows_nothing() {
        assert_eq!(Ancestry::default().containment(1, Lsn::new(1)), Containment::Unseen);
    }
}
