//! The order in which a read asks the nodes, and what each answer changes in it.
//!
//! A plan is pure: it knows no clock and no connection. The checkout in `read` asks it for the next [`Step`], carries
//! the step out, and reports what came of it. A plan goes in rounds. Each round begins with the candidates of a new
//! snapshot, asks them one after the other, best first, and ends with a pause.
//!
//! A new way to serve a read is a tier in `topology::eligibility`, which ranks the nodes, and, if a node can answer in
//! a new way, a variant of [`Unserved`] with its consequence in [`ReadPlan::on`].

use std::time::Duration;

use fastrand::Rng;

use crate::error::NodeFailure;
use crate::topology::routing::{Candidate, take};
use crate::topology::{Rank, Tier};

/// Time for one node to provide a connection while there are other nodes to ask.
///
/// An idle connection is available at once, and a new one within some round trips. A node whose pool is exhausted is
/// not down, but another node may have an idle connection.
const NODE_TIMEOUT: Duration = Duration::from_millis(100);

/// Longest pause before all nodes are tried again.
///
/// A change of the topology ends it.
const PAUSE: Duration = Duration::from_millis(50);

/// Retry pause when all fallback permits are taken.
///
/// They free up within milliseconds.
const PAUSE_FOR_PERMIT: Duration = Duration::from_millis(10);

/// The next thing to do for a read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Step {
    /// Ask this node for a connection.
    Ask(Ask),
    /// Wait until a node that is behind has reached the position, then try again.
    ///
    /// If none does, report it with [`ReadPlan::on_waited`].
    AwaitPosition,
    /// Begin a new round at once.
    StartOver,
    /// Begin a new round after this pause, or earlier if the topology changes.
    ///
    /// The shortage is the error if the deadline comes first.
    Pause(Duration, Shortage),
}

/// A request to one node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ask {
    /// Index of the node in the snapshot.
    pub(super) node: usize,
    pub(super) tier: Tier,
    /// `true` if no other node is left to ask in this round.
    pub(super) is_last: bool,
    /// Time to wait for the node; `None` is until the deadline of the read.
    pub(super) timeout: Option<Duration>,
}

impl Ask {
    /// Returns `true` if the read needs a permit, because it loads the primary.
    pub(super) fn needs_permit(&self) -> bool {
        matches!(self.tier, Tier::Preferred | Tier::Fallback)
    }
}

/// The reason why a node that was asked did not serve.
#[derive(Debug)]
pub(super) enum Unserved {
    /// The node failed.
    Failed(NodeFailure),
    /// All its connections are in use.
    Exhausted,
    /// All permits for reads that fall back to the primary are taken.
    NoPermit { limit: u32 },
    /// It has not reached the position of the causal token.
    Behind,
    /// Its settings were replaced, and so was its pool.
    Retired,
}

/// The reason why no node served in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shortage {
    /// All connections of this node of the snapshot are in use.
    Exhausted { node: usize },
    /// All permits for reads that fall back to the primary are taken.
    NoPermit { limit: u32 },
    /// The nodes that answered have not reached the position of the causal token.
    Behind,
    /// No node was there, or all failed.
    NoNode,
}

/// The plan of one read, through all its rounds.
#[derive(Debug)]
pub(super) struct ReadPlan {
    rng: Rng,
    /// The candidates that were not asked yet in this round.
    candidates: Vec<Candidate>,
    /// The last node of this round whose connections were all in use.
    exhausted: Option<usize>,
    /// The limit of permits, if the round met it.
    permit_limit: Option<u32>,
    /// The nodes of this round that have not reached the position.
    behind: Vec<usize>,
    /// `true` if the read has waited for a position, which it does once.
    has_waited: bool,
    /// `true` if a pool of this round was retired.
    is_outdated: bool,
    /// `true` if a node was exhausted in the last complete round.
    was_exhausted: bool,
    /// The last failure of each node, in the order of their times.
    failures: Vec<NodeFailure>,
}

impl ReadPlan {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            rng,
            candidates: Vec::new(),
            exhausted: None,
            permit_limit: None,
            behind: Vec::new(),
            has_waited: false,
            is_outdated: false,
            was_exhausted: false,
            failures: Vec::new(),
        }
    }

    /// Begins a round with the candidates of a new snapshot.
    pub(super) fn begin_round(&mut self, mut candidates: Vec<Candidate>) {
        // Once a replica was only exhausted, stay in its queue; do not retry the primary.
        if self.was_exhausted && candidates.iter().any(|next| is_in_turn(next.rank, &[Tier::Near, Tier::Fit]))
        {
            candidates.retain(|next| !is_in_turn(next.rank, &[Tier::Preferred, Tier::Fallback]));
        }
        self.candidates = candidates;
        (self.exhausted, self.permit_limit, self.is_outdated) = (None, None, false);
        self.behind.clear();
    }

    /// Returns the next step.
    pub(super) fn next(&mut self) -> Step {
        if self.is_outdated {
            return Step::StartOver;
        }
        let next = take(&mut self.candidates, &mut self.rng);
        // The primary serves only if no replica gets there soon.
        let is_late = next.is_none_or(|next| next.rank.last || next.rank.tier > Tier::Behind);
        if is_late && !self.behind.is_empty() && !self.has_waited {
            self.candidates.extend(next);
            return Step::AwaitPosition;
        }
        let Some(next) = next else { return self.end_round() };
        let is_last = self.candidates.is_empty();
        let timeout = match self.permit_limit {
            None if is_last => None,
            // A permit may be free again at any moment, so do not wait long for a node that may hang.
            Some(_) if is_last => Some(PAUSE_FOR_PERMIT),
            _ => Some(NODE_TIMEOUT),
        };
        Step::Ask(Ask { node: next.node, tier: next.rank.tier, is_last, timeout })
    }

    /// Adapts the rest of the plan to the outcome of a step.
    pub(super) fn on(&mut self, asked: Ask, outcome: Unserved) {
        match outcome {
            Unserved::Failed(failure) => {
                self.failures.retain(|earlier| earlier.node != failure.node);
                self.failures.push(failure);
            }
            // A replica that is behind keeps no load from the primary.
            Unserved::Behind | Unserved::Exhausted if asked.tier == Tier::Behind => {
                self.behind.push(asked.node);
            }
            Unserved::Behind => self.behind.push(asked.node),
            // The primary is asked again in its own tier, if no other node serves.
            Unserved::Exhausted | Unserved::NoPermit { .. } if asked.tier == Tier::Preferred => {}
            Unserved::Exhausted => {
                // An exhausted replica is fit, so the primary must not take its load.
                self.candidates.retain(|next| !is_in_turn(next.rank, &[Tier::Fallback]));
                self.exhausted = Some(asked.node);
            }
            Unserved::NoPermit { limit } => self.permit_limit = Some(limit),
            // The node is still in the set, with a new pool in a newer snapshot.
            Unserved::Retired => self.is_outdated = true,
        }
    }

    /// Returns the nodes of this round that have not reached the position.
    pub(super) fn behind(&self) -> &[usize] {
        &self.behind
    }

    /// Goes on after a wait in which no node reached the position.
    pub(super) fn on_waited(&mut self) {
        self.has_waited = true;
    }

    /// Returns the last failure of each node, oldest first.
    pub(super) fn failures(&self) -> &[NodeFailure] {
        &self.failures
    }

    fn end_round(&mut self) -> Step {
        self.was_exhausted = self.exhausted.is_some();
        let pause =
            if self.permit_limit.is_some() || !self.behind.is_empty() { PAUSE_FOR_PERMIT } else { PAUSE };
        let shortage = match (self.exhausted, self.permit_limit) {
            (Some(node), _) => Shortage::Exhausted { node },
            (None, Some(limit)) => Shortage::NoPermit { limit },
            (None, None) if !self.behind.is_empty() => Shortage::Behind,
            (None, None) => Shortage::NoNode,
        };
        Step::Pause(pause, shortage)
    }
}

/// Returns `true` if a node is of one of these tiers, and not put last.
fn is_in_turn(rank: Rank, tiers: &[Tier]) -> bool {
    !rank.last && tiers.contains(&rank.tier)
}

#[cfg(test)]
mod tests;
