//! One server under several names.
//!
//! Examples are `localhost` beside `127.0.0.1`, a DNS alias, or a proxy that leads to the primary beside the
//! instances' addresses.
//!
//! The server process identifies the server. Two nodes of one cluster are one server if their server started in the
//! same microsecond, and has the same port in its settings. One of them represents the server. The others are its
//! aliases for as long as they lead there. An address may lead to another server at the next probe.

use std::net::IpAddr;

use super::history::RoleHistory;
use super::{Observation, Seen};
use crate::stats::ServerIdentity;

/// Finds, for each alias, the place of the node that represents its server.
///
/// An address that never moved is preferred; then the server's own address and port; then the first node in the
/// configuration.
pub(super) fn representatives(history: &RoleHistory, nodes: &[Seen<'_>]) -> Vec<Option<usize>> {
    let server = |place: usize| nodes[place].last_seen.observation().and_then(identity);
    let rank = |place: usize| {
        let seen = &nodes[place];
        let floats = history.pasts.get(&seen.node).is_some_and(|past| past.floats);
        let (host, port) = seen.node.rsplit_once(':').unwrap_or((&seen.node, ""));
        let own = seen.last_seen.observation().and_then(|observation| observation.server);
        let own_port = own.is_some_and(|own| port.parse() == Ok(own.port));
        let host = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        let own_address = own_port && host.is_some() && own.is_some_and(|own| own.address == host);
        (floats, !own_address, !own_port, place)
    };
    let representative = |place: usize| {
        let (cluster, process) = server(place)?;
        let is_same = |other: &usize| {
            server(*other).is_some_and(|(of, other)| of == cluster && other.is_same_server(&process))
        };
        let best = (0..nodes.len()).filter(is_same).min_by_key(|other| rank(*other))?;
        (best != place).then_some(best)
    };
    (0..nodes.len()).map(representative).collect()
}

fn identity(observation: &Observation) -> Option<(u64, ServerIdentity)> {
    Some((observation.system_identifier?, observation.server?))
}

/// Records which server each address leads to, so that a moving address is known.
pub(super) fn follow(history: &mut RoleHistory, nodes: &[Seen<'_>]) {
    for Seen { node, last_seen, .. } in nodes {
        let (Some(past), Some(now)) =
            (history.pasts.get_mut(node), last_seen.observation().and_then(|e| e.server))
        else {
            continue;
        };
        let elsewhere = |before: ServerIdentity| {
            before.port != now.port
                || before.address.zip(now.address).is_some_and(|(before, now)| before != now)
        };
        past.floats |= past.server.replace(now).is_some_and(elsewhere);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::topology::{LastSeen, NodeRole, Roles, resolve_roles};

    /// Returns a server at its own port of 127.0.0.1 that started at this time.
    fn by(port: u16, started_at_micros: i64, observation: Observation) -> LastSeen {
        let address = Some(IpAddr::from([127, 0, 0, 1]));
        LastSeen::Observed(Observation {
            server: Some(ServerIdentity { started_at_micros, port, address }),
            ..observation
        })
    }

    fn see(history: &mut RoleHistory, nodes: &[(&str, LastSeen)]) -> Roles {
        let seen = |(node, last_seen)| Seen { node: Arc::from(node), last_seen, promotable: true };
        let nodes: Vec<_> = nodes.iter().map(|(node, last_seen)| seen((*node, last_seen))).collect();
        resolve_roles(history, &nodes, Instant::now())
    }

    const A: &str = "127.0.0.1:5001";
    const B: &str = "127.0.0.1:5002";
    const WRITER: &str = "haproxy:5000";

    /// This was reported as a split brain for ever.
    #[test]
    fn one_server_under_two_names_is_one_server() {
        let now = Instant::now();
        let primary = || by(5001, 10, Observation::primary(1, 100, now));
        let mut history = RoleHistory::default();
        let roles = see(&mut history, &[("localhost:5001", primary()), (A, primary())]);
        assert_eq!(roles.by_node, [NodeRole::Alias, NodeRole::Primary], "its own address represents it");
        assert_eq!((roles.primary, roles.aliases[0]), (Some(1), Some(1)));
        // The same port on another machine, or another start time, is another server.
        let roles = see(
            &mut RoleHistory::default(),
            &[(B, by(5001, 11, Observation::primary(1, 100, now))), (A, primary())],
        );
        assert_eq!(roles.by_node, [NodeRole::Conflicting; 2]);
    }

    /// The writer's address moves to the new primary, before or after the promotion is seen.
    #[test]
    fn a_floating_address_follows_a_failover() {
        let now = Instant::now();
        let a = || by(5001, 10, Observation::primary(1, 100, now));
        let standby = || by(5002, 20, Observation::standby(1, 100, now));
        let b = || by(5002, 20, Observation::primary(2, 200, now));
        let mut history = RoleHistory::default();
        let roles = see(&mut history, &[(WRITER, a()), (A, a()), (B, standby())]);
        assert_eq!(roles.by_node, [NodeRole::Alias, NodeRole::Primary, NodeRole::Replica]);
        // The instance is gone, and the proxy still leads to it for a moment.
        let roles = see(&mut history, &[(WRITER, a()), (A, LastSeen::Down), (B, b())]);
        assert_eq!(roles.by_node, [NodeRole::StalePrimary, NodeRole::Unknown, NodeRole::Primary]);
        // The proxy moves before a probe sees the instance's promotion.
        let roles = see(&mut history, &[(WRITER, b()), (A, LastSeen::Down), (B, LastSeen::Down)]);
        assert_eq!(roles.primary, Some(0));
        let roles = see(&mut history, &[(WRITER, LastSeen::Down), (A, LastSeen::Down), (B, b())]);
        assert_eq!(roles.primary, Some(2), "the same process is no second primary");
        let roles = see(&mut history, &[(WRITER, b()), (A, LastSeen::Down), (B, b())]);
        assert_eq!(roles.by_node, [NodeRole::Alias, NodeRole::Unknown, NodeRole::Primary]);
        // A is rewound and follows; the proxy fails, and comes back.
        let rewound = || by(5001, 30, Observation::standby(2, 200, now));
        for writer in [LastSeen::Down, b()] {
            let roles = see(&mut history, &[(WRITER, writer), (A, rewound()), (B, b())]);
            assert_eq!((roles.primary, roles.by_node[1]), (Some(2), NodeRole::Replica));
        }
    }

    /// The proxy led to the higher timeline; only the instance behind it can prove that timeline gone.
    #[test]
    fn an_alias_keeps_no_lost_timeline() {
        let now = Instant::now();
        let a = || by(5001, 10, Observation::primary(1, 100, now));
        let b = || by(5002, 20, Observation::primary(2, 200, now));
        let mut history = RoleHistory::default();
        see(&mut history, &[(WRITER, b()), (A, a()), (B, b())]);
        see(&mut history, &[(WRITER, b()), (A, a()), (B, LastSeen::Down)]);
        let roles = see(&mut history, &[(WRITER, a()), (A, a()), (B, LastSeen::Down)]);
        assert_eq!(roles.by_node[..2], [NodeRole::Alias, NodeRole::StalePrimary]);
        let rebuilt = by(5002, 40, Observation::standby(1, 100, now + Duration::from_secs(1)));
        let roles = see(&mut history, &[(WRITER, a()), (A, a()), (B, rebuilt)]);
        assert_eq!((roles.primary, roles.by_node[0]), (Some(1), NodeRole::Alias));
    }

    #[test]
    fn an_alias_has_no_vote() {
        let now = Instant::now();
        let other = Observation { system_identifier: Some(8), ..Observation::primary(1, 100, now) };
        let (a, b) = (|| by(5001, 10, Observation::primary(1, 100, now)), by(5002, 20, other));
        let roles = see(&mut RoleHistory::default(), &[(WRITER, a()), (A, a()), (B, b)]);
        assert_eq!(roles.primary, None, "one against one");
        assert!(roles.mismatch.is_some());
    }
}
