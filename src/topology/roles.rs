//! From observations to roles.
//!
//! `pg_is_in_recovery() = false` does not make a primary: an old primary that comes back shows the same. These
//! rules apply, in order:
//!
//! 1. The set's system identifier is the one that most nodes show (`identity`). A node that shows another one is
//!    **foreign**.
//! 2. A promotion begins a new timeline. The set remembers the highest one, even while no node shows it. A node out
//!    of recovery on a lower one is a **stale primary**: its new writes would be lost. The set forgets the timeline
//!    only when every node that showed it has since shown a lower one (`history`).
//! 3. A node alone out of recovery on the highest timeline is **the primary**. If another node was ever seen there
//!    out of recovery, both are **conflicting**, and no node takes writes. This lasts until one of them is gone for
//!    good: it is a standby or foreign, shows another timeline, or left the configuration.
//!
//! If another cluster replaces the set's own on every node, the set adopts it (`replacement`). What an earlier run of the
//! program knew counts as well (`memory`).
//!
//! A node configured as not promotable is never the primary: out of recovery, it is fenced, and its writes do not
//! count. If a server process has several names, one is resolved, and the others are its **aliases** (`alias`).
//!
//! The function is pure: the same history and observations give the same roles.

use std::sync::Arc;

use tokio::time::Instant;

use super::alias;
use super::ancestry::Ancestry;
use super::history::{Answer, LostHistory, RoleHistory, Unrecorded};
use super::identity::Vote;
use super::lineage::Lineage;
use super::{Lag, LastSeen, NodeRole, Observation};
use crate::defect::Defect;

/// A configured node with its last observation.
#[derive(Debug, Clone)]
pub(crate) struct Seen<'s> {
    /// The configured address (`host:port`), the key of its past.
    pub(crate) node: Arc<str>,
    pub(crate) last_seen: &'s LastSeen,
    /// `true` if the node may be promoted; otherwise it is never the primary.
    pub(crate) promotable: bool,
}

/// The result of resolving the roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Roles {
    /// The role of each node.
    pub(crate) by_node: Vec<NodeRole>,
    /// The lag of each replica.
    pub(crate) lags: Vec<Option<Lag>>,
    /// The relation of each node's history to the primary's.
    pub(crate) lineages: Vec<Lineage>,
    /// The node that represents the server, for each alias.
    pub(crate) aliases: Vec<Option<usize>>,
    /// The primary, if there is exactly one.
    pub(crate) primary: Option<usize>,
    /// The highest timeline that counts.
    pub(crate) timeline: u32,
    /// The nodes that all claim to be the primary, including those out of sight.
    pub(crate) conflicting: Vec<usize>,
    /// The nodes' last identifiers, if no identifier counts.
    ///
    /// They then contradict each other.
    pub(crate) mismatch: Option<Vec<Option<u64>>>,
    /// The identifier that the set has adopted.
    pub(crate) system_identifier: Option<u64>,
    /// The timelines from which the present history descends.
    pub(crate) ancestry: Ancestry,
    /// The lost history, if the highest timeline fell.
    pub(crate) lost: Option<LostHistory>,
    /// The former identifier of the set, if another cluster has just replaced it.
    pub(crate) replaced: Option<u64>,
}

/// Resolves the role of each node.
///
/// If another cluster has replaced the set's own, the set adopts it, and forgets everything about the old one.
pub(crate) fn resolve_roles(history: &mut RoleHistory, nodes: &[Seen<'_>], now: Instant) -> Roles {
    let before = history.system_identifier;
    if history.replacement(nodes, now).is_none() {
        return resolve(history, nodes, now);
    }
    history.forget(now);
    Roles { replaced: before, ..resolve(history, nodes, now) }
}

fn resolve(history: &mut RoleHistory, nodes: &[Seen<'_>], now: Instant) -> Roles {
    history.keep(nodes.iter().map(|seen| &seen.node));
    alias::follow(history, nodes);
    let aliases = alias::representatives(history, nodes);
    let vote = elect(history, nodes, &aliases);
    let shown: Vec<LastSeen> = nodes.iter().map(|seen| seen.last_seen.clone()).collect();
    history.lineages.observe(&shown);
    let claims: Vec<Option<u32>> = nodes.iter().map(|seen| history.claim(seen)).collect();
    let overtaken: Vec<_> =
        (0..nodes.len()).map(|place| history.lineages.overtaken(place, &shown, &claims)).collect();
    history.note_overtaken(nodes, &overtaken, &claims);
    let all_last_seen = with_implied_timelines(&shown, &overtaken);
    // Most nodes may contradict an adopted identity. Then the set writes nothing, but the identity still shows
    // which nodes are its own.
    let identity = match vote {
        Vote::One(identifier) => Some(identifier),
        Vote::Open | Vote::Refused => history.system_identifier,
    };
    let ours = |observation: &Observation| identity.is_some() && observation.system_identifier == identity;
    if let Some(identity) = identity {
        history.go_by(identity);
    }
    for (i, Seen { node, promotable, .. }) in nodes.iter().enumerate() {
        let Some(observation) = all_last_seen[i].observation() else { continue };
        if let Some(timeline) =
            aliases[i].and_then(|of| all_last_seen[of].observation()).map(|of| of.timeline)
        {
            history.record_alias(node, timeline);
        } else if ours(observation) {
            let implied = shown[i].observation().is_some_and(|shown| shown.timeline < observation.timeline);
            // A primary on its timeline is far enough to have sent the node's data.
            let fed = || {
                all_last_seen
                    .iter()
                    .filter_map(LastSeen::observation)
                    .filter(|e| ours(e) && !e.in_recovery)
                    .any(|primary| {
                        primary.timeline == observation.timeline && primary.position >= observation.position
                    })
            };
            history.record(
                node,
                &Answer {
                    observation,
                    implied,
                    fed: observation.in_recovery && fed(),
                    promotable: *promotable,
                },
            );
        } else if identity.is_some()
            && observation.system_identifier.is_some()
            && let Some(past) = history.pasts.get_mut(node)
        {
            past.forget_writing();
        }
    }
    let lost = history.settle_highest();
    let shown_now = || all_last_seen.iter().filter_map(LastSeen::observation).map(|seen| seen.timeline).max();
    let highest = match shown_now() {
        Some(shown) if Defect::ForgottenTimeline.is_seeded() => shown,
        _ => history.highest_timeline,
    };

    let claims = |(i, seen): (usize, &Seen<'_>)| {
        let wrote = history.pasts.get(&seen.node).and_then(|past| past.wrote);
        wrote.filter(|wrote| wrote.timeline == highest).map(|_| i)
    };
    let mut claims: Vec<usize> = nodes.iter().enumerate().filter_map(claims).collect();
    forget_names(history, nodes, &mut claims);
    let role = |(i, last_seen): (usize, &LastSeen)| match last_seen.observation() {
        None => NodeRole::Unknown,
        Some(_) if aliases[i].is_some() => NodeRole::Alias,
        // The role may not ask for the identity. If no node shows one, a standby serves what no other node can.
        // Writes need a known identity.
        Some(observation) if observation.system_identifier.is_none() => {
            let alone = identity.is_none() && vote != Vote::Refused;
            if alone && observation.in_recovery { NodeRole::Replica } else { NodeRole::Unknown }
        }
        Some(_) if identity.is_none() => NodeRole::Unknown,
        Some(observation) if !ours(observation) => NodeRole::Foreign,
        Some(observation) if observation.in_recovery => NodeRole::Replica,
        Some(_) if !nodes[i].promotable => NodeRole::NotPromotable,
        Some(_) if Defect::AnyOutOfRecovery.is_seeded() => NodeRole::Primary,
        Some(observation) if observation.timeline < highest => NodeRole::StalePrimary,
        Some(_) if claims.len() > 1 || vote == Vote::Refused => NodeRole::Conflicting,
        Some(_) => NodeRole::Primary,
    };
    let by_node: Vec<_> = all_last_seen.iter().enumerate().map(role).collect();
    let primary = by_node.iter().position(|role| *role == NodeRole::Primary);

    if let Some(primary) = primary {
        // An identity is kept for good once a primary has shown it.
        history.system_identifier = identity;
        let node = &nodes[primary].node;
        let is_other = history.primary.replace(Arc::clone(node)).is_some_and(|before| before != *node);
        if let Some(observation) = all_last_seen[primary].observation() {
            // Without a promotion in between, two primaries have two histories.
            if is_other && history.positions.timeline() == observation.timeline {
                history.positions.clear();
            }
            let waited = history.lineages.last_in_recovery(primary);
            history.positions.follow(observation, waited);
        }
    }
    let mut lineages = history.lineages.trace(&all_last_seen, &by_node, primary);
    if Defect::AnyLineage.is_seeded() {
        lineages.fill(Lineage::Shared);
    }
    for ((role, last_seen), lineage) in by_node.iter().zip(&all_last_seen).zip(&lineages) {
        if let (NodeRole::Replica, Some(observation), Lineage::Shared) =
            (role, last_seen.observation(), lineage)
        {
            history.positions.follow_standby(observation);
        }
    }
    let lags = by_node
        .iter()
        .zip(&all_last_seen)
        .zip(&lineages)
        .map(|((role, last_seen), lineage)| match role {
            NodeRole::Replica => last_seen.observation().map(|observation| match lineage {
                Lineage::Shared => history.positions.lag(observation, now),
                // The position does not show which rows the standby lacks.
                Lineage::Unproven { .. } | Lineage::Parted { .. } => Lag { bytes: None, time: None },
            }),
            _ => None,
        })
        .collect();
    let mismatch = (vote == Vote::Refused).then(|| identifiers(history, nodes));
    let conflicting = if claims.len() > 1 { claims } else { Vec::new() };
    Roles {
        by_node,
        lags,
        lineages,
        aliases,
        primary,
        timeline: highest,
        conflicting,
        mismatch,
        system_identifier: identity,
        ancestry: Ancestry { timeline: highest, forks: history.lineages.certain_forks().collect() },
        lost,
        replaced: None,
    }
}

/// Adds the timelines that standbys prove.
///
/// A standby that is further than its primary proves a later timeline, whatever its control file shows.
fn with_implied_timelines(all_last_seen: &[LastSeen], overtaken: &[Option<(u32, usize)>]) -> Vec<LastSeen> {
    let raise = |(last_seen, overtaken): (&LastSeen, &Option<(u32, usize)>)| match last_seen {
        LastSeen::Observed(observation) => {
            let implied = overtaken.map_or(0, |(timeline, _)| timeline + 1);
            let timeline = observation.timeline.max(implied);
            LastSeen::Observed(Observation { timeline, ..observation.clone() })
        }
        LastSeen::Never | LastSeen::Down => last_seen.clone(),
    };
    all_last_seen.iter().zip(overtaken).map(raise).collect()
}

/// Keeps only the visible name if one server process made several claims.
///
/// A name that is out of sight is no second server.
fn forget_names(history: &RoleHistory, nodes: &[Seen<'_>], claims: &mut Vec<usize>) {
    let server = |place: usize| {
        history.pasts.get(&nodes[place].node).and_then(|past| past.wrote).and_then(|wrote| wrote.server)
    };
    let is_seen = |place: usize| nodes[place].last_seen.observation().is_some();
    let all = claims.clone();
    claims.retain(|place| {
        let is_better = |other: &usize| {
            let same = server(*place).zip(server(*other)).is_some_and(|(a, b)| a.is_same_server(&b));
            same && (!is_seen(*other), *other) < (!is_seen(*place), *place)
        };
        !all.iter().any(is_better)
    });
}

/// Records the identifiers that the nodes show, and counts the votes.
fn elect(history: &mut RoleHistory, nodes: &[Seen<'_>], aliases: &[Option<usize>]) -> Vote {
    for Seen { node, last_seen, promotable } in nodes {
        let Some(observation) = last_seen.observation().filter(|e| e.system_identifier.is_some()) else {
            continue;
        };
        if let Some(past) = history.pasts.get_mut(node) {
            past.system_identifier = observation.system_identifier;
            let unrecorded = Unrecorded { observation: observation.clone(), promotable: *promotable };
            past.last = Some(unrecorded).filter(|_| history.system_identifier.is_none());
        }
    }
    // One server has one vote, however many names it has.
    let has_vote = |(seen, alias): (&Seen<'_>, &Option<usize>)| {
        let was_alias = history.pasts.get(&seen.node).is_some_and(|past| past.was_alias);
        alias.is_none() && (seen.last_seen.observation().is_some() || !was_alias)
    };
    let voters: Vec<bool> = nodes.iter().zip(aliases).map(has_vote).collect();
    let is_pending =
        |(seen, votes): &(&Seen<'_>, &bool)| **votes && matches!(seen.last_seen, LastSeen::Never);
    let pending = nodes.iter().zip(&voters).filter(is_pending).count();
    let shown = identifiers(history, nodes).into_iter().zip(voters);
    let shown: Vec<_> = shown.filter_map(|(shown, votes)| votes.then_some(shown)).collect();
    history.weigh(&shown, pending)
}

/// Returns the last identifier of each node.
fn identifiers(history: &RoleHistory, nodes: &[Seen<'_>]) -> Vec<Option<u64>> {
    let of = |seen: &Seen<'_>| history.pasts.get(&seen.node).and_then(|past| past.system_identifier);
    nodes.iter().map(of).collect()
}

#[cfg(test)]
pub(in crate::topology) mod tests;
