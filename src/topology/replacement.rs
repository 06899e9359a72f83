//! When another cluster has replaced the set's own (pure).
//!
//! After `pg_upgrade`, or a switch to another cluster at the same addresses, all nodes show a new system identifier.
//! The set's own is gone, so nothing is left to protect. But one node that was initialised by mistake, or an address
//! that leads to another cluster for a moment, must not take the writes. So the set adopts the new identifier only if
//! all of these hold:
//!
//! * Every configured node answers and shows the same new identifier.
//! * At least one of them is out of recovery, and may be promoted.
//! * No other node that the set watches shows its old identifier.
//! * At least one of the addresses showed the old identifier before. Otherwise the configuration was changed, and may be
//!   wrong.
//! * Each node has answered before and after [`REPLACED_FOR`], and none of the above failed in between.

use std::time::Duration;

use tokio::time::Instant;

use super::history::RoleHistory;
use super::roles::Seen;

/// Time for which all nodes must show the new identifier without a break.
///
/// It outlives a restart of a proxy, or a wrong record in a name service that is noticed at once.
pub(super) const REPLACED_FOR: Duration = Duration::from_secs(30);

/// A new identifier that all nodes show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    identifier: u64,
    /// When the last of the nodes began to show it.
    since: Instant,
}

impl RoleHistory {
    /// Returns the identifier of the cluster that has certainly replaced ours.
    pub(super) fn replacement(&mut self, nodes: &[Seen<'_>], now: Instant) -> Option<u64> {
        let shown = self.new_identifier(nodes).filter(|_| !self.is_elsewhere);
        self.candidate = shown.map(|identifier| {
            let kept = self.candidate.filter(|candidate| candidate.identifier == identifier);
            kept.unwrap_or(Candidate { identifier, since: now })
        });
        let Candidate { identifier, since } = self.candidate?;
        let answered = |seen: &Seen<'_>| {
            seen.last_seen.observation().is_some_and(|observation| observation.at >= since + REPLACED_FOR)
        };
        nodes.iter().all(answered).then_some(identifier)
    }

    /// Returns the new identifier that every node shows.
    ///
    /// The nodes may be a cluster that replaced the adopted one.
    fn new_identifier(&self, nodes: &[Seen<'_>]) -> Option<u64> {
        let adopted = self.system_identifier?;
        let shown = |seen: &Seen<'_>| seen.last_seen.observation()?.system_identifier;
        let new = shown(nodes.first()?).filter(|new| *new != adopted)?;
        let all = nodes.iter().all(|seen| shown(seen) == Some(new));
        let writes = |seen: &Seen<'_>| {
            seen.promotable
                && seen.last_seen.observation().is_some_and(|observation| !observation.in_recovery)
        };
        let was_ours =
            |seen: &Seen<'_>| self.pasts.get(&seen.node).is_some_and(|past| past.highest.is_some());
        (all && nodes.iter().any(writes) && nodes.iter().any(was_ours)).then_some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::super::roles::tests::seen;
    use super::super::{LastSeen, NodeRole, Observation, resolve_roles};
    use super::*;

    const OLD: u64 = 7;
    const NEW: u64 = 8;

    /// A set of two nodes over time.
    struct Set {
        history: RoleHistory,
        now: Instant,
    }

    fn primary(identifier: u64) -> Option<(u64, bool)> {
        Some((identifier, false))
    }

    fn standby(identifier: u64) -> Option<(u64, bool)> {
        Some((identifier, true))
    }

    impl Set {
        fn new() -> Self {
            let mut set = Self { history: RoleHistory::default(), now: Instant::now() };
            set.see(1, [primary(OLD), standby(OLD)]);
            set
        }

        /// Observes the nodes every second, and returns their roles after the last observation.
        ///
        /// Each node is down, or shows its identifier and if it is in recovery.
        fn see(&mut self, seconds: u32, nodes: [Option<(u64, bool)>; 2]) -> [NodeRole; 2] {
            let mut by_node = [NodeRole::Unknown; 2];
            for _ in 0..seconds {
                self.now += Duration::from_secs(1);
                let observed = |node: Option<(u64, bool)>| match node {
                    Some((identifier, in_recovery)) => LastSeen::Observed(Observation {
                        system_identifier: Some(identifier),
                        in_recovery,
                        ..Observation::standby(1, 100, self.now)
                    }),
                    None => LastSeen::Down,
                };
                let all_last_seen = nodes.map(observed);
                let roles = resolve_roles(&mut self.history, &seen(&all_last_seen), self.now);
                by_node.copy_from_slice(&roles.by_node);
            }
            by_node
        }
    }

    const FENCED: [NodeRole; 2] = [NodeRole::Foreign; 2];
    const ADOPTED: [NodeRole; 2] = [NodeRole::Primary, NodeRole::Replica];

    /// All nodes stayed fenced until the program was restarted.
    #[test]
    fn a_new_cluster_on_all_nodes_is_adopted_after_half_a_minute() {
        let mut set = Set::new();
        assert_eq!(set.see(30, [primary(NEW), standby(NEW)]), FENCED);
        assert_eq!(set.see(1, [primary(NEW), standby(NEW)]), ADOPTED);
        assert_eq!(set.history.system_identifier, Some(NEW));
        assert_eq!(set.see(31, [primary(OLD), standby(OLD)]), ADOPTED, "and back again");
    }

    #[test]
    fn any_interruption_starts_the_time_again() {
        let new = [primary(NEW), standby(NEW)];
        for (between, why) in [
            ([primary(NEW), None], "a node is down"),
            ([primary(NEW), standby(OLD)], "a node shows the old identifier"),
            ([primary(NEW), standby(9)], "a node shows a third one"),
            ([standby(NEW), standby(NEW)], "none is the primary"),
        ] {
            let mut set = Set::new();
            set.see(25, new);
            set.see(1, between);
            assert_ne!(set.see(30, new), ADOPTED, "{why}");
            assert_eq!(set.see(1, new), ADOPTED, "{why}");
        }
    }

    #[test]
    fn a_cluster_at_addresses_that_never_showed_the_old_one_is_not_adopted() {
        let mut set = Set::new();
        let renamed = |set: &mut Set| {
            set.now += Duration::from_secs(1);
            let observation = Observation {
                system_identifier: Some(NEW),
                in_recovery: false,
                ..Observation::standby(1, 100, set.now)
            };
            let last_seen = LastSeen::Observed(observation);
            let nodes = [Seen { node: "elsewhere:5432".into(), last_seen: &last_seen, promotable: true }];
            resolve_roles(&mut set.history, &nodes, set.now).by_node
        };
        for _ in 0..100 {
            assert_eq!(renamed(&mut set), [NodeRole::Foreign]);
        }
    }

    #[test]
    fn a_node_out_of_the_configuration_that_shows_the_old_identifier_prevents_it() {
        let mut set = Set::new();
        set.history.is_elsewhere = true;
        assert_eq!(set.see(60, [primary(NEW), standby(NEW)]), FENCED);
        set.history.is_elsewhere = false;
        assert_eq!(set.see(30, [primary(NEW), standby(NEW)]), FENCED, "the time begins now");
        assert_eq!(set.see(1, [primary(NEW), standby(NEW)]), ADOPTED);
    }
}
