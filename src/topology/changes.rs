//! Differences between two snapshots, for subscribers, searches and the log.

use crate::topology::{Health, LostHistory, NodeStatus, PrimaryStatus, Topology};

/// Returns `true` if two topologies differ in measurements only.
pub(super) fn same_for_users(a: &Topology, b: &Topology) -> bool {
    let of = |node: &NodeStatus| {
        (node.name.clone(), node.role, node.health, node.serves_reads, node.serves_writes)
    };
    a.primary == b.primary && a.nodes.iter().map(of).eq(b.nodes.iter().map(of))
}

/// Returns `true` if a node went down or came back, or a role changed.
///
/// A primary may then be found soon.
pub(super) fn has_moved(before: &Topology, after: &Topology) -> bool {
    let is_there =
        |node: &NodeStatus| !matches!(node.health, Health::Unknown | Health::Down | Health::Starting);
    let of = |node: &NodeStatus| (node.role, is_there(node));
    !before.nodes.iter().map(of).eq(after.nodes.iter().map(of))
}

/// Logs a lost history for the operator.
pub(super) fn log_lost_history(lost: &LostHistory, now: u32) {
    tracing::error!(
        timeline = lost.timeline,
        fork = lost.fork.map(|fork| fork.to_string()),
        position = %lost.position,
        now,
        "a timeline is gone: every node that showed it is on a lower one; what was written on it is lost"
    );
}

/// Logs that another cluster replaced the set's own.
pub(super) fn log_replaced_cluster(before: u64, now: u64) {
    tracing::warn!(
        before,
        now,
        "the cluster was replaced: every node shows a new system identifier, which is adopted"
    );
}

/// Logs a new primary and newly fenced nodes.
pub(super) fn log_changes(before: &Topology, after: &Topology) {
    if before.primary != after.primary {
        match &after.primary {
            PrimaryStatus::One { node, timeline } => tracing::info!(node, timeline, "there is a primary"),
            PrimaryStatus::None => tracing::warn!("there is no primary"),
            PrimaryStatus::SplitBrain { nodes, timeline } => {
                tracing::error!(
                    ?nodes,
                    timeline,
                    "split brain: writes are refused until one primary is left"
                );
            }
            PrimaryStatus::IdentifierMismatch { nodes } => {
                let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
                tracing::error!(?nodes, "the nodes belong to different clusters: writes are refused");
            }
        }
    }
    for node in &after.nodes {
        let was = before.node(&node.name).map(|node| node.role);
        if was != Some(node.role) && node.role.is_fenced() {
            tracing::warn!(node = node.name, role = %node.role, "a node is fenced");
        }
    }
}
