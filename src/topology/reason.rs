//! The reason why a node does not serve, in the words of the health report.

use std::time::Duration;

use super::state::NodeEntry;
use crate::topology::{Lag, Lineage, NodeRole, Roles};

/// Reason if the probe's role may not ask which cluster the node belongs to.
pub(super) const UNIDENTIFIED: &str = "the probe may not ask for its system identifier: GRANT EXECUTE ON FUNCTION \
    pg_control_system(), pg_control_checkpoint(), pg_control_recovery() TO the role of its URL";

/// Returns why a replica's rows may differ from the primary's.
pub(super) fn parting(lineage: Lineage) -> Option<String> {
    match lineage {
        Lineage::Shared => None,
        Lineage::Unproven { fork } => Some(format!(
            "nothing shows yet that it follows the primary, whose history began at {fork}: it may still follow the old one"
        )),
        Lineage::Parted { fork: Some(fork) } => Some(format!(
            "its history parted from the primary's at {fork}: it has rows that the primary does not have; rebuild it"
        )),
        Lineage::Parted { fork: None } => Some(
            "its history parted from the primary's: it has rows that the primary does not have; rebuild it"
                .to_owned(),
        ),
    }
}

/// Returns why a node out of recovery is not the primary, or may not be used.
pub(super) fn conflict(i: usize, roles: &Roles, entries: &[NodeEntry]) -> Option<String> {
    let observation = entries[i].node_health.last_seen.observation()?;
    let shown = observation.system_identifier;
    match roles.by_node[i] {
        NodeRole::NotPromotable => Some(format!(
            "it writes timeline {}, and `promotable = false` says that it must never be a primary: rebuild it as a standby",
            observation.timeline
        )),
        NodeRole::StalePrimary => Some(format!(
            "it writes timeline {}, and timeline {} was seen: rebuild it as a standby, or rebuild every node of the higher \
             timeline from it",
            observation.timeline, roles.timeline
        )),
        NodeRole::Conflicting if roles.conflicting.len() > 1 => {
            let others = roles.conflicting.iter().filter(|other| **other != i);
            let others: Vec<_> = others.map(|other| entries[*other].node.name()).collect();
            Some(format!(
                "it writes timeline {}, as did {}: {REMEDY}",
                observation.timeline,
                others.join(", ")
            ))
        }
        NodeRole::Foreign => Some(format!(
            "its system identifier is {}, and that of the set {}: {FORGET}",
            shown?, roles.system_identifier?
        )),
        NodeRole::Unknown | NodeRole::Conflicting if roles.mismatch.is_some() => {
            Some(format!("its system identifier is {}, and other nodes show another one: {FORGET}", shown?))
        }
        _ => None,
    }
}

const REMEDY: &str = "rebuild all but one as standbys (a stopped one still counts), remove them from the configuration, or \
    let `forget_history` decide for the one that is left";
const FORGET: &str = "correct the configuration, or call `forget_history` after a change of the cluster";

/// Returns why a replica is not fresh enough.
pub(super) fn staleness(lag: Option<Lag>, paused: bool, limit: Duration) -> String {
    let paused = if paused { "; its replay is paused" } else { "" };
    match lag.and_then(|lag| lag.time) {
        Some(time) => {
            format!("{:.1} s behind, more than {limit:?} (`reads.max_lag`){paused}", time.as_secs_f64())
        }
        None if lag.is_some_and(|lag| lag.bytes.is_some()) => {
            format!("further behind than this program has watched the primary, so its lag is unknown{paused}")
        }
        None => format!("how far it is behind is unknown{paused}"),
    }
}
