//! One server under several names: `localhost` beside `127.0.0.1`, a service or proxy that leads to the primary beside
//! the instances' own addresses, a DNS alias.
//!
//! The server process tells: two nodes of one cluster whose server started in the same microsecond, and has the same port
//! in its settings, are one server. One of them represents it, and the others are its aliases for as long as they lead
//! there. An address may lead to another server at the next probe.

use std::net::IpAddr;

use super::memory::Memory;
use super::{Evidence, Seen, ServerIdentity};

/// Finds for each node the place of the one that represents its server, if that is another one.
///
/// An address that leads to one server for good represents it rather than one that was seen to move; then the server's own
/// address and port; then the first in the configuration.
pub(super) fn representatives(memory: &Memory, nodes: &[Seen<'_>]) -> Vec<Option<usize>> {
    let server = |place: usize| nodes[place].sighting.evidence().and_then(identity);
    let rank = |place: usize| {
        let seen = &nodes[place];
        let floats = memory.pasts.get(&seen.node).is_some_and(|past| past.floats);
        let (host, port) = seen.node.rsplit_once(':').unwrap_or((&seen.node, ""));
        let own = seen.sighting.evidence().and_then(|evidence| evidence.server);
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

fn identity(evidence: &Evidence) -> Option<(u64, ServerIdentity)> {
    Some((evidence.system_identifier?, evidence.server?))
}

/// Notes to which servers the addresses lead, so that one that moves is known to.
pub(super) fn follow(memory: &mut Memory, nodes: &[Seen<'_>]) {
    for Seen { node, sighting, .. } in nodes {
        let (Some(past), Some(now)) =
            (memory.pasts.get_mut(node), sighting.evidence().and_then(|e| e.server))
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
    use crate::topology::{Sighting, Standing, Verdict, judge};

    /// A server at its own port of 127.0.0.1, where it started then.
    fn by(port: u16, started_at_micros: i64, evidence: Evidence) -> Sighting {
        let address = Some(IpAddr::from([127, 0, 0, 1]));
        Sighting::Seen(Evidence {
            server: Some(ServerIdentity { started_at_micros, port, address }),
            ..evidence
        })
    }

    fn see(memory: &mut Memory, nodes: &[(&str, Sighting)]) -> Verdict {
        let seen = |(node, sighting)| Seen { node: Arc::from(node), sighting, promotable: true };
        let nodes: Vec<_> = nodes.iter().map(|(node, sighting)| seen((*node, sighting))).collect();
        judge(memory, &nodes, Instant::now())
    }

    const A: &str = "127.0.0.1:5001";
    const B: &str = "127.0.0.1:5002";
    const WRITER: &str = "haproxy:5000";

    /// It was a split brain for ever.
    #[test]
    fn one_server_under_two_names_is_one_server() {
        let now = Instant::now();
        let primary = || by(5001, 10, Evidence::primary(1, 100, now));
        let mut memory = Memory::default();
        let verdict = see(&mut memory, &[("localhost:5001", primary()), (A, primary())]);
        assert_eq!(verdict.standings, [Standing::Alias, Standing::Primary], "its own address represents it");
        assert_eq!((verdict.primary, verdict.aliases[0]), (Some(1), Some(1)));
        // The same port on another machine, or a start at another time, is another server.
        let verdict =
            see(&mut Memory::default(), &[(B, by(5001, 11, Evidence::primary(1, 100, now))), (A, primary())]);
        assert_eq!(verdict.standings, [Standing::Contender; 2]);
    }

    /// The writer's address moves to the new primary, sooner or later than that is seen.
    #[test]
    fn a_floating_address_follows_a_failover() {
        let now = Instant::now();
        let a = || by(5001, 10, Evidence::primary(1, 100, now));
        let standby = || by(5002, 20, Evidence::standby(1, 100, now));
        let b = || by(5002, 20, Evidence::primary(2, 200, now));
        let mut memory = Memory::default();
        let verdict = see(&mut memory, &[(WRITER, a()), (A, a()), (B, standby())]);
        assert_eq!(verdict.standings, [Standing::Alias, Standing::Primary, Standing::Replica]);
        // The instance is gone, and the proxy still shows it for a moment.
        let verdict = see(&mut memory, &[(WRITER, a()), (A, Sighting::Lost), (B, b())]);
        assert_eq!(verdict.standings, [Standing::StalePrimary, Standing::Unknown, Standing::Primary]);
        // It moves before the promotion of the instance is seen.
        let verdict = see(&mut memory, &[(WRITER, b()), (A, Sighting::Lost), (B, Sighting::Lost)]);
        assert_eq!(verdict.primary, Some(0));
        let verdict = see(&mut memory, &[(WRITER, Sighting::Lost), (A, Sighting::Lost), (B, b())]);
        assert_eq!(verdict.primary, Some(2), "the same process is no second primary");
        let verdict = see(&mut memory, &[(WRITER, b()), (A, Sighting::Lost), (B, b())]);
        assert_eq!(verdict.standings, [Standing::Alias, Standing::Unknown, Standing::Primary]);
        // A is rewound and follows; the proxy fails, and comes back.
        let rewound = || by(5001, 30, Evidence::standby(2, 200, now));
        for writer in [Sighting::Lost, b()] {
            let verdict = see(&mut memory, &[(WRITER, writer), (A, rewound()), (B, b())]);
            assert_eq!((verdict.primary, verdict.standings[1]), (Some(2), Standing::Replica));
        }
    }

    /// The proxy led to the higher timeline; what proves that it is gone is the instance behind it.
    #[test]
    fn an_alias_keeps_no_timeline_that_its_server_has_lost() {
        let now = Instant::now();
        let a = || by(5001, 10, Evidence::primary(1, 100, now));
        let b = || by(5002, 20, Evidence::primary(2, 200, now));
        let mut memory = Memory::default();
        see(&mut memory, &[(WRITER, b()), (A, a()), (B, b())]);
        see(&mut memory, &[(WRITER, b()), (A, a()), (B, Sighting::Lost)]);
        let verdict = see(&mut memory, &[(WRITER, a()), (A, a()), (B, Sighting::Lost)]);
        assert_eq!(verdict.standings[..2], [Standing::Alias, Standing::StalePrimary]);
        let rebuilt = by(5002, 40, Evidence::standby(1, 100, now + Duration::from_secs(1)));
        let verdict = see(&mut memory, &[(WRITER, a()), (A, a()), (B, rebuilt)]);
        assert_eq!((verdict.primary, verdict.standings[0]), (Some(1), Standing::Alias));
    }

    #[test]
    fn an_alias_has_no_vote() {
        let now = Instant::now();
        let other = Evidence { system_identifier: Some(8), ..Evidence::primary(1, 100, now) };
        let (a, b) = (|| by(5001, 10, Evidence::primary(1, 100, now)), by(5002, 20, other));
        let verdict = see(&mut Memory::default(), &[(WRITER, a()), (A, a()), (B, b)]);
        assert_eq!(verdict.primary, None, "one against one");
        assert!(verdict.mismatch.is_some());
    }
}
