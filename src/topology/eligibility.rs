//! Which node may serve a read, and how it ranks among the others.
//!
//! The whole policy is one pure function, [`eligibility`], of the facts about a node and the demands of a read.
//! `routing` then chooses among the eligible nodes. A new rule needs a fact or a demand, a branch here, and a row in
//! the table of the tests.

use std::time::Duration;

use super::{Health, Lag, NodeId, NodeRole};
use crate::config::{Config, Fallback};
use crate::lsn::Lsn;
use crate::options::ReadOptions;

/// Suitability of a node for a read, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    /// The primary, for a read that asks for it first.
    ///
    /// The primary is a candidate in its own tier as well.
    Preferred,
    /// Fit, and in the caller's zone if zones count.
    Near,
    /// Fit.
    Fit,
    /// A replica that is not known to have reached the position that the read requires.
    ///
    /// It may have reached it since, so it is asked.
    Behind,
    /// The primary, for reads that no fit replica can serve.
    Fallback,
    /// Fit, but just back and at its current read limit; or flapping.
    Recovering,
    /// With a sign of trouble since the last healthy probe.
    Suspected,
    /// Not fresh: there is no primary, so no node is known to be fresher.
    Stale,
}

/// The order in which a read tries the nodes, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// `true` if the node comes after all others, whatever their tier.
    pub(crate) last: bool,
    pub(crate) tier: Tier,
}

/// The decision about one node for one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eligibility {
    /// The node may serve, at this rank.
    Eligible(Rank),
    /// The primary may serve before the other nodes, and otherwise at this rank.
    ///
    /// It has a second turn because the first one needs a permit, and all of these may be taken.
    Preferred(Rank),
    /// The node must not serve.
    Excluded(Exclusion),
}

impl Eligibility {
    /// Returns the tier without a preference, or `None` for an excluded node.
    pub(crate) fn tier(self) -> Option<Tier> {
        match self {
            Self::Eligible(rank) | Self::Preferred(rank) => Some(rank.tier),
            Self::Excluded(_) => None,
        }
    }
}

/// The reason why a node must not serve a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exclusion {
    /// The read may not be sent to this node, for example because it failed there.
    NotRequested,
    /// The node is neither the primary nor a replica.
    Role,
    /// The primary, for a read under [`Fallback::Never`].
    NoFallback,
    /// The replica has rows that the primary does not have.
    Diverged,
    /// The replica is not healthy.
    Unhealthy,
    /// The lag of the replica is too high or unknown.
    TooFarBehind,
}

/// The nodes that a read may be sent to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NodeFilter<'n> {
    All,
    /// All nodes, but these only after all others.
    Avoid(&'n [NodeId]),
    /// All nodes except these.
    Except(&'n [NodeId]),
    /// Only these nodes, and never the primary, for a read that may do harm.
    OnlyReplicas(&'n [NodeId]),
}

impl NodeFilter<'_> {
    fn admits(self, node: &NodeFacts<'_>) -> bool {
        match self {
            Self::All | Self::Avoid(_) => true,
            Self::Except(nodes) => !nodes.contains(&node.id),
            Self::OnlyReplicas(nodes) => nodes.contains(&node.id) && node.role != NodeRole::Primary,
        }
    }

    fn puts_last(self, node: &NodeFacts<'_>) -> bool {
        matches!(self, Self::Avoid(nodes) if nodes.contains(&node.id))
    }
}

/// The known facts about a node that matter to reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeFacts<'n> {
    pub(crate) id: NodeId,
    pub(crate) role: NodeRole,
    pub(crate) health: Health,
    pub(crate) lag: Option<Lag>,
    /// `true` if the node's history has parted from the primary's.
    pub(crate) diverged: bool,
    /// `true` if reads should prefer other nodes.
    ///
    /// There was a sign of trouble since the last healthy probe, or the present probe is overdue.
    pub(crate) suspected: bool,
    pub(crate) ejected: bool,
    /// The limit of concurrent reads during slow start.
    pub(crate) read_limit: Option<u32>,
    /// Reads in flight on the node.
    pub(crate) in_flight: u32,
    pub(crate) zone: Option<&'n str>,
    /// `true` if the replica's history is known to be that of the primary.
    pub(crate) follows: bool,
    /// The highest position that the node is known to have reached.
    pub(crate) position: Lsn,
}

/// The demands of one read, with the configuration's defaults filled in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadDemand<'r> {
    fallback: Fallback,
    prefer_primary: bool,
    max_lag: Duration,
    max_lag_bytes: Option<u64>,
    /// The zone whose nodes are preferred, if zones count.
    zone: Option<&'r str>,
    nodes: NodeFilter<'r>,
    /// `true` if there is a primary, so that a fresher node may exist.
    has_primary: bool,
    /// The position that a replica must have reached, because of a causal token.
    ///
    /// It counts instead of the lag, unless the caller limits that as well.
    position: Option<Lsn>,
    limits_lag: bool,
}

impl<'r> ReadDemand<'r> {
    pub(crate) fn new(
        options: &'r ReadOptions,
        config: &'r Config,
        nodes: NodeFilter<'r>,
        position: Option<Lsn>,
        has_primary: bool,
    ) -> Self {
        let reads = config.reads();
        // If the primary is the only node, it is no fallback.
        let is_alone = config.nodes().len() == 1;
        Self {
            fallback: if is_alone { Fallback::Always } else { options.fallback.unwrap_or(reads.fallback) },
            prefer_primary: options.prefer_primary && !is_alone,
            max_lag: options.max_lag.unwrap_or(reads.max_lag),
            max_lag_bytes: reads.max_lag_bytes,
            zone: options.zone.as_deref().or_else(|| config.zone().filter(|_| reads.prefer_zone)),
            nodes,
            has_primary,
            position,
            limits_lag: position.is_none() || options.max_lag.is_some(),
        }
    }
}

/// Decides whether a node may serve a read, and at which rank.
pub(crate) fn eligibility(node: &NodeFacts<'_>, read: &ReadDemand<'_>) -> Eligibility {
    if !read.nodes.admits(node) {
        return Eligibility::Excluded(Exclusion::NotRequested);
    }
    let tier = match (node.role, read.fallback) {
        (NodeRole::Primary, Fallback::Never) => Err(Exclusion::NoFallback),
        (NodeRole::Primary, Fallback::WhenUnfit) => Ok(Tier::Fallback),
        (NodeRole::Primary, Fallback::Always) => Ok(tier_if_fit(node, read)),
        (NodeRole::Replica, _) => match misfit(node, read) {
            None if is_behind(node, read) => Ok(Tier::Behind),
            None => Ok(tier_if_fit(node, read)),
            Some(exclusion) => last_resort(node, read).ok_or(exclusion),
        },
        (NodeRole::Conflicting, _) => last_resort(node, read).ok_or(Exclusion::Role),
        (
            NodeRole::Unknown
            | NodeRole::StalePrimary
            | NodeRole::Foreign
            | NodeRole::Alias
            | NodeRole::NotPromotable,
            _,
        ) => Err(Exclusion::Role),
    };
    match tier.map(|tier| Rank { last: read.nodes.puts_last(node), tier }) {
        Ok(rank) if is_preferred(node, read) => Eligibility::Preferred(rank),
        Ok(rank) => Eligibility::Eligible(rank),
        Err(exclusion) => Eligibility::Excluded(exclusion),
    }
}

/// Returns why a replica is not fit; `None` if it is healthy and fresh enough.
fn misfit(node: &NodeFacts<'_>, read: &ReadDemand<'_>) -> Option<Exclusion> {
    let is_fresh =
        !read.limits_lag || node.lag.is_some_and(|lag| lag.is_within(read.max_lag, read.max_lag_bytes));
    match node.health {
        _ if node.diverged => Some(Exclusion::Diverged),
        // Its position says nothing about what it has of the primary's history.
        _ if read.position.is_some() && !node.follows => Some(Exclusion::Diverged),
        // Without a primary, an answer of the node could belong to a history that no monitor has seen yet.
        _ if !read.has_primary && is_behind(node, read) => Some(Exclusion::TooFarBehind),
        Health::Up | Health::TooManyConnections | Health::Unchecked if is_fresh => None,
        Health::Up | Health::TooManyConnections | Health::Unchecked => Some(Exclusion::TooFarBehind),
        Health::Unknown | Health::Suspect | Health::LoginRejected | Health::Starting | Health::Down => {
            Some(Exclusion::Unhealthy)
        }
    }
}

/// Returns `true` if a node is not known to have reached the required position.
fn is_behind(node: &NodeFacts<'_>, read: &ReadDemand<'_>) -> bool {
    read.position.is_some_and(|required| node.position < required)
}

/// Returns the tier of a fit node, by its recent trouble and its zone.
fn tier_if_fit(node: &NodeFacts<'_>, read: &ReadDemand<'_>) -> Tier {
    if node.suspected {
        Tier::Suspected
    } else if node.ejected || node.read_limit.is_some_and(|limit| node.in_flight >= limit) {
        Tier::Recovering
    } else if read.zone.is_some() && read.zone == node.zone {
        Tier::Near
    } else {
        Tier::Fit
    }
}

/// Returns the tier of a node that may serve although it is not fit.
///
/// While there is no primary, no node has anything fresher. A diverged node has rows that were never the set's: no
/// answer is better than those.
fn last_resort(node: &NodeFacts<'_>, read: &ReadDemand<'_>) -> Option<Tier> {
    let has_sessions =
        matches!(node.health, Health::Up | Health::TooManyConnections | Health::Unchecked | Health::Suspect);
    let is_current = read.position.is_none() || node.follows && !is_behind(node, read);
    (!read.has_primary && !node.diverged && has_sessions && is_current).then_some(Tier::Stale)
}

/// Returns `true` for a primary without trouble, if the read prefers it.
fn is_preferred(node: &NodeFacts<'_>, read: &ReadDemand<'_>) -> bool {
    read.prefer_primary && node.role == NodeRole::Primary && !node.suspected && !node.ejected
}

#[cfg(test)]
mod tests;
