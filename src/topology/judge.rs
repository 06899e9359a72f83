//! From what was seen to who is who.
//!
//! `pg_is_in_recovery() = false` does not make a primary: an old one that comes back says so too. The rules,
//! in their order:
//!
//! 1. The set's system identifier is the one that most nodes show (`identity`). A node that shows another one is **foreign**.
//! 2. A promotion begins a new timeline. The highest one is remembered, also while no node shows it. A
//!    node out of recovery on a lower one is a **stale primary**: what it takes now would be lost. The memory ends
//!    only when every node that showed the higher timeline was seen on a lower one since (`memory`).
//! 3. Out of recovery on the highest timeline: alone, it is **the primary**. If another node was ever seen so,
//!    both are **contenders**, and no node takes writes, until one of them is gone for good: it is a standby
//!    or foreign, shows another timeline, or left the configuration.
//!
//! A node that is configured as not promotable is never the primary: out of recovery, it is fenced, and what it wrote counts
//! for nothing. Of the names of one server process, one is judged, and the others are its **aliases** (`alias`).
//!
//! The function is pure: the same memory and sightings give the same verdict.

use std::sync::Arc;

use tokio::time::Instant;

use super::alias;
use super::identity::{Vote, vote};
use super::lineage::{Lineage, Lineages};
use super::memory::{Look, LostHistory, Memory};
use super::{Evidence, Lag, Sighting, Standing};

/// A configured node, as it was last seen.
#[derive(Debug, Clone)]
pub(crate) struct Seen<'s> {
    /// The configured address (`host:port`), by which it is remembered.
    pub(crate) node: Arc<str>,
    pub(crate) sighting: &'s Sighting,
    /// It may be promoted; otherwise it is never the primary.
    pub(crate) promotable: bool,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// What each node is.
    pub(crate) standings: Vec<Standing>,
    /// How far each replica is behind.
    pub(crate) lags: Vec<Option<Lag>>,
    /// How the history of each node relates to the primary's.
    pub(crate) lineages: Vec<Lineage>,
    /// The node that represents its server, for each node that is an alias.
    pub(crate) aliases: Vec<Option<usize>>,
    /// The primary, if there is exactly one.
    pub(crate) primary: Option<usize>,
    /// The highest timeline that counts.
    pub(crate) timeline: u32,
    /// The nodes that all claim to be the primary, also those that are out of sight.
    pub(crate) contenders: Vec<usize>,
    /// The identifiers that the nodes showed last, if they contradict each other so that none counts.
    pub(crate) mismatch: Option<Vec<Option<u64>>>,
    /// The identifier that the set goes by.
    pub(crate) system_identifier: Option<u64>,
    /// The history that is gone, so that the highest timeline fell.
    pub(crate) lost: Option<LostHistory>,
}

/// Judges who is who.
pub(crate) fn judge(memory: &mut Memory, nodes: &[Seen<'_>], now: Instant) -> Verdict {
    memory.keep(nodes.iter().map(|seen| &seen.node));
    alias::follow(memory, nodes);
    let aliases = alias::representatives(memory, nodes);
    let vote = elect(memory, nodes, &aliases);
    let shown: Vec<Sighting> = nodes.iter().map(|seen| seen.sighting.clone()).collect();
    memory.lineages.observe(&shown);
    let sightings = with_implied_timelines(&shown, &memory.lineages);
    // Most nodes may speak against an adopted identity: then nothing is written, and it still tells whose the nodes are.
    let identity = match vote {
        Vote::One(identifier) => Some(identifier),
        Vote::Open | Vote::Refused => memory.system_identifier,
    };
    let ours = |evidence: &Evidence| identity.is_some() && evidence.system_identifier == identity;
    if let Some(identity) = identity {
        memory.go_by(identity);
    }
    for (i, Seen { node, promotable, .. }) in nodes.iter().enumerate() {
        let Some(evidence) = sightings[i].evidence() else { continue };
        if let Some(timeline) = aliases[i].and_then(|of| sightings[of].evidence()).map(|of| of.timeline) {
            memory.record_alias(node, timeline);
        } else if ours(evidence) {
            let implied = shown[i].evidence().is_some_and(|shown| shown.timeline < evidence.timeline);
            // A primary on its timeline is far enough to have sent what the node has.
            let fed = || {
                sightings.iter().filter_map(Sighting::evidence).filter(|e| ours(e) && !e.in_recovery).any(
                    |primary| primary.timeline == evidence.timeline && primary.position >= evidence.position,
                )
            };
            memory.record(
                node,
                &Look { evidence, implied, fed: evidence.in_recovery && fed(), promotable: *promotable },
            );
        } else if identity.is_some()
            && evidence.system_identifier.is_some()
            && let Some(past) = memory.pasts.get_mut(node)
        {
            past.forget_writing();
        }
    }
    let lost = memory.settle_highest();
    let highest = memory.highest_timeline;

    let claims = |(i, seen): (usize, &Seen<'_>)| {
        let wrote = memory.pasts.get(&seen.node).and_then(|past| past.wrote);
        wrote.filter(|wrote| wrote.timeline == highest).map(|_| i)
    };
    let mut claims: Vec<usize> = nodes.iter().enumerate().filter_map(claims).collect();
    forget_names(memory, nodes, &mut claims);
    let standing = |(i, sighting): (usize, &Sighting)| match sighting.evidence() {
        None => Standing::Unknown,
        Some(_) if aliases[i].is_some() => Standing::Alias,
        // Its role may not ask for its identity. If no node tells one, a standby serves what no other node can; writes
        // need more than that.
        Some(evidence) if evidence.system_identifier.is_none() => {
            let alone = identity.is_none() && vote != Vote::Refused;
            if alone && evidence.in_recovery { Standing::Replica } else { Standing::Unknown }
        }
        Some(_) if identity.is_none() => Standing::Unknown,
        Some(evidence) if !ours(evidence) => Standing::Foreign,
        Some(evidence) if evidence.in_recovery => Standing::Replica,
        Some(_) if !nodes[i].promotable => Standing::NotPromotable,
        Some(evidence) if evidence.timeline < highest => Standing::StalePrimary,
        Some(_) if claims.len() > 1 || vote == Vote::Refused => Standing::Contender,
        Some(_) => Standing::Primary,
    };
    let standings: Vec<_> = sightings.iter().enumerate().map(standing).collect();
    let primary = standings.iter().position(|standing| *standing == Standing::Primary);

    if let Some(primary) = primary {
        // An identity is kept for good once a primary bears it.
        memory.system_identifier = identity;
        let node = &nodes[primary].node;
        let is_other = memory.primary.replace(Arc::clone(node)).is_some_and(|before| before != *node);
        if let Some(evidence) = sightings[primary].evidence() {
            // Without a promotion in between, two primaries have two histories.
            if is_other && memory.history.timeline() == evidence.timeline {
                memory.history.clear();
            }
            let waited = memory.lineages.last_in_recovery(primary);
            memory.history.follow(evidence, waited);
        }
    }
    let lineages = memory.lineages.trace(&sightings, &standings, primary);
    for ((standing, sighting), lineage) in standings.iter().zip(&sightings).zip(&lineages) {
        if let (Standing::Replica, Some(evidence), Lineage::Shared) = (standing, sighting.evidence(), lineage)
        {
            memory.history.follow_standby(evidence);
        }
    }
    let lags = standings
        .iter()
        .zip(&sightings)
        .zip(&lineages)
        .map(|((standing, sighting), lineage)| match standing {
            Standing::Replica => sighting.evidence().map(|evidence| match lineage {
                Lineage::Shared => memory.history.lag(evidence, now),
                // Its position says nothing about what it lacks.
                Lineage::Unproven { .. } | Lineage::Parted { .. } => Lag { bytes: None, time: None },
            }),
            _ => None,
        })
        .collect();
    let mismatch = (vote == Vote::Refused).then(|| identifiers(memory, nodes));
    let contenders = if claims.len() > 1 { claims } else { Vec::new() };
    Verdict {
        standings,
        lags,
        lineages,
        aliases,
        primary,
        timeline: highest,
        contenders,
        mismatch,
        system_identifier: identity,
        lost,
    }
}

/// A standby that is further than its primary shows that there is a later timeline, whatever its control file says.
fn with_implied_timelines(sightings: &[Sighting], lineages: &Lineages) -> Vec<Sighting> {
    let raise = |(place, sighting): (usize, &Sighting)| match sighting {
        Sighting::Seen(evidence) => {
            let timeline = evidence.timeline.max(lineages.implied_timeline(place, sightings));
            Sighting::Seen(Evidence { timeline, ..evidence.clone() })
        }
        Sighting::Unseen | Sighting::Lost => sighting.clone(),
    };
    sightings.iter().enumerate().map(raise).collect()
}

/// Leaves of several claims of one server process the one that is seen: a name that is out of sight is no second server.
fn forget_names(memory: &Memory, nodes: &[Seen<'_>], claims: &mut Vec<usize>) {
    let server = |place: usize| {
        memory.pasts.get(&nodes[place].node).and_then(|past| past.wrote).and_then(|wrote| wrote.server)
    };
    let is_seen = |place: usize| nodes[place].sighting.evidence().is_some();
    let all = claims.clone();
    claims.retain(|place| {
        let is_better = |other: &usize| {
            let same = server(*place).zip(server(*other)).is_some_and(|(a, b)| a.is_same_server(&b));
            same && (!is_seen(*other), *other) < (!is_seen(*place), *place)
        };
        !all.iter().any(is_better)
    });
}

/// Notes the identifiers that the nodes show, and lets them vote.
fn elect(memory: &mut Memory, nodes: &[Seen<'_>], aliases: &[Option<usize>]) -> Vote {
    for Seen { node, sighting, .. } in nodes {
        let Some(evidence) = sighting.evidence().filter(|e| e.system_identifier.is_some()) else { continue };
        if let Some(past) = memory.pasts.get_mut(node) {
            past.system_identifier = evidence.system_identifier;
            past.last = Some(evidence.clone()).filter(|_| memory.system_identifier.is_none());
        }
    }
    // One server has one vote, however many names it has.
    let has_vote = |(seen, alias): (&Seen<'_>, &Option<usize>)| {
        let was_alias = memory.pasts.get(&seen.node).is_some_and(|past| past.was_alias);
        alias.is_none() && (seen.sighting.evidence().is_some() || !was_alias)
    };
    let voters: Vec<bool> = nodes.iter().zip(aliases).map(has_vote).collect();
    let is_pending =
        |(seen, votes): &(&Seen<'_>, &bool)| **votes && matches!(seen.sighting, Sighting::Unseen);
    let pending = nodes.iter().zip(&voters).filter(is_pending).count();
    let shown = identifiers(memory, nodes).into_iter().zip(voters);
    let shown: Vec<_> = shown.filter_map(|(shown, votes)| votes.then_some(shown)).collect();
    vote(memory.system_identifier, &shown, pending)
}

/// The identifier that each node showed last.
fn identifiers(memory: &Memory, nodes: &[Seen<'_>]) -> Vec<Option<u64>> {
    let of = |seen: &Seen<'_>| memory.pasts.get(&seen.node).and_then(|past| past.system_identifier);
    nodes.iter().map(of).collect()
}

#[cfg(test)]
pub(super) mod tests;
