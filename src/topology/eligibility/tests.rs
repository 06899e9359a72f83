use super::Eligibility::Excluded;
use super::*;
use crate::config::ReadSettings;

const FRESH: Lag = Lag { bytes: Some(0), time: Some(Duration::from_millis(500)) };
const MINUTE: Duration = Duration::from_secs(60);

type Node = NodeFacts<'static>;
type Read = ReadDemand<'static>;

fn replica() -> Node {
    NodeFacts {
        id: NodeId::next(),
        role: NodeRole::Replica,
        health: Health::Up,
        lag: Some(FRESH),
        diverged: false,
        suspected: false,
        ejected: false,
        read_limit: None,
        in_flight: 3,
        zone: Some("b"),
        follows: true,
        position: Lsn::new(500),
    }
}

fn primary() -> Node {
    NodeFacts { role: NodeRole::Primary, lag: None, ..replica() }
}

fn conflicting() -> Node {
    NodeFacts { role: NodeRole::Conflicting, lag: None, ..replica() }
}

impl Node {
    fn role(self, role: NodeRole) -> Self {
        Self { role, ..self }
    }

    fn health(self, health: Health) -> Self {
        Self { health, ..self }
    }

    fn lag(self, time: Duration) -> Self {
        Self { lag: Some(Lag { time: Some(time), ..FRESH }), ..self }
    }

    fn behind(self, bytes: u64) -> Self {
        Self { lag: Some(Lag { bytes: Some(bytes), ..FRESH }), ..self }
    }

    fn lag_unknown(self) -> Self {
        Self { lag: Some(Lag { bytes: None, time: None }), ..self }
    }

    fn diverged(self) -> Self {
        Self { diverged: true, ..self.lag_unknown() }
    }

    fn suspected(self) -> Self {
        Self { suspected: true, ..self }
    }

    fn ejected(self) -> Self {
        Self { ejected: true, ..self }
    }

    /// In slow start, with three reads in flight.
    fn limit(self, limit: u32) -> Self {
        Self { read_limit: Some(limit), ..self }
    }
}

/// A read under [`Fallback::WhenUnfit`], while there is a primary.
fn read() -> Read {
    ReadDemand {
        fallback: Fallback::WhenUnfit,
        prefer_primary: false,
        max_lag: Duration::from_secs(10),
        max_lag_bytes: None,
        zone: None,
        nodes: NodeFilter::All,
        has_primary: true,
        position: None,
        limits_lag: true,
    }
}

impl Read {
    fn fallback(self, fallback: Fallback) -> Self {
        Self { fallback, ..self }
    }

    fn never(self) -> Self {
        self.fallback(Fallback::Never)
    }

    fn always(self) -> Self {
        self.fallback(Fallback::Always)
    }

    fn prefer_primary(self) -> Self {
        Self { prefer_primary: true, ..self }
    }

    fn max_lag(self, max_lag: Duration) -> Self {
        Self { max_lag, ..self }
    }

    fn max_bytes(self, bytes: u64) -> Self {
        Self { max_lag_bytes: Some(bytes), ..self }
    }

    fn zone(self, zone: &'static str) -> Self {
        Self { zone: Some(zone), ..self }
    }

    /// With a causal token of a position.
    fn after(self, position: u64) -> Self {
        Self { position: Some(Lsn::new(position)), limits_lag: false, ..self }
    }

    fn without_primary(self) -> Self {
        Self { has_primary: false, ..self }
    }
}

fn tier(tier: Tier) -> Eligibility {
    Eligibility::Eligible(Rank { last: false, tier })
}

fn first_or(tier: Tier) -> Eligibility {
    Eligibility::Preferred(Rank { last: false, tier })
}

#[test]
fn each_node_has_its_tier_by_the_policy_for_reads() {
    use Exclusion::*;
    use Tier::*;
    #[rustfmt::skip]
    let table = [
        ("a fresh replica serves", replica(), read(), tier(Fit)),
        ("a fresh replica of the preferred zone serves before others", replica(), read().zone("b"), tier(Near)),
        ("a fresh replica of another zone serves after those", replica(), read().zone("a"), tier(Fit)),
        ("a node without a zone is in no preferred one", Node { zone: None, ..replica() }, read().zone("a"), tier(Fit)),
        ("a replica that is as far as the token serves", replica(), read().after(500), tier(Fit)),
        ("one that is not is asked", replica(), read().after(501), tier(Behind)),
        ("of such replicas, lag does not matter", replica().lag_unknown(), read().after(500), tier(Fit)),
        ("unless the call limits it", replica().lag(MINUTE), Read { limits_lag: true, ..read().after(500) }, Excluded(TooFarBehind)),
        ("a position on a history that may be another proves nothing", Node { follows: false, ..replica() }, read().after(500), Excluded(Diverged)),
        ("without a primary, a replica that is far enough serves", replica(), read().after(500).without_primary(), tier(Fit)),
        ("without a primary, a replica is not asked", replica(), read().after(501).without_primary(), Excluded(TooFarBehind)),
        ("the primary has every position of its history", primary(), read().after(501), tier(Fallback)),
        ("a replica at the maximum lag is fresh", replica().lag(MINUTE), read().max_lag(MINUTE), tier(Fit)),
        ("a replica beyond the maximum lag is excluded", replica().lag(MINUTE), read(), Excluded(TooFarBehind)),
        ("a replica of unknown lag is excluded", replica().lag_unknown(), read(), Excluded(TooFarBehind)),
        ("a replica within the maximum bytes is fresh", replica().behind(9), read().max_bytes(9), tier(Fit)),
        ("a replica beyond the maximum bytes is excluded", replica().behind(9), read().max_bytes(8), Excluded(TooFarBehind)),
        ("a diverged replica is excluded", replica().diverged(), read(), Excluded(Diverged)),

        ("a full replica serves on open sessions", replica().health(Health::TooManyConnections), read(), tier(Fit)),
        ("an unchecked replica serves on open sessions", replica().health(Health::Unchecked), read(), tier(Fit)),
        ("a replica that missed a probe is excluded", replica().health(Health::Suspect), read(), Excluded(Unhealthy)),
        ("a replica that rejects the login is excluded", replica().health(Health::LoginRejected), read(), Excluded(Unhealthy)),
        ("a replica that is starting is excluded", replica().health(Health::Starting), read(), Excluded(Unhealthy)),
        ("a replica that is down is excluded", replica().health(Health::Down), read(), Excluded(Unhealthy)),
        ("a replica that was not probed is excluded", replica().health(Health::Unknown), read(), Excluded(Unhealthy)),

        ("a suspected replica serves after healthy ones", replica().suspected(), read(), tier(Suspected)),
        ("an ejected replica serves after healthy ones", replica().ejected(), read(), tier(Recovering)),
        ("a replica at its limit of slow start serves after others", replica().limit(3), read(), tier(Recovering)),
        ("a replica below its limit of slow start serves", replica().limit(4), read(), tier(Fit)),
        ("suspicion counts more than ejection", replica().ejected().suspected(), read(), tier(Suspected)),
        ("ejection counts more than the zone", replica().ejected(), read().zone("b"), tier(Recovering)),

        ("the primary serves if no replica is fit", primary(), read(), tier(Fallback)),
        ("a suspected primary is a fallback all the same", primary().suspected(), read(), tier(Fallback)),
        ("the primary serves no read without fallback", primary(), read().never(), Excluded(NoFallback)),
        ("the primary serves as a replica if reads always may", primary(), read().always(), tier(Fit)),
        ("then its zone counts", primary(), read().always().zone("b"), tier(Near)),
        ("then its slow start counts", primary().limit(3), read().always(), tier(Recovering)),
        ("then suspicion counts", primary().suspected(), read().always(), tier(Suspected)),

        ("a preferred primary is asked first", primary(), read().prefer_primary(), first_or(Fallback)),
        ("also if it serves as a replica", primary(), read().always().prefer_primary(), first_or(Fit)),
        ("also during slow start, which limits it when it is asked", primary().limit(3), read().prefer_primary(), first_or(Fallback)),
        ("a suspected primary is not asked first", primary().suspected(), read().prefer_primary(), tier(Fallback)),
        ("an ejected primary is not asked first", primary().ejected(), read().prefer_primary(), tier(Fallback)),
        ("a preference does not outweigh `never`", primary(), read().never().prefer_primary(), Excluded(NoFallback)),
        ("a replica is not asked first", replica(), read().prefer_primary(), tier(Fit)),

        ("without a primary, a fresh replica serves as ever", replica(), read().without_primary(), tier(Fit)),
        ("without a primary, a replica serves at any lag", replica().lag_unknown(), read().without_primary(), tier(Stale)),
        ("without a primary, a suspect serves", replica().health(Health::Suspect), read().without_primary(), tier(Stale)),
        ("without a primary, one that is down does not", replica().health(Health::Down), read().without_primary(), Excluded(Unhealthy)),
        ("without a primary, one that rejects logins does not", replica().health(Health::LoginRejected), read().without_primary(), Excluded(Unhealthy)),
        ("without a primary, a diverged replica does not", replica().diverged(), read().without_primary(), Excluded(Diverged)),
        ("in a split brain, a conflicting node serves", conflicting(), read().without_primary(), tier(Stale)),
        ("also under `never`", conflicting(), read().without_primary().never(), tier(Stale)),
        ("a conflicting node that is down does not", conflicting().health(Health::Down), read().without_primary(), Excluded(Role)),
        ("a conflicting node beside a primary does not", conflicting(), read(), Excluded(Role)),

        ("a node of unknown role never serves", replica().role(NodeRole::Unknown), read().without_primary(), Excluded(Role)),
        ("a stale primary never serves", replica().role(NodeRole::StalePrimary), read().without_primary(), Excluded(Role)),
        ("a foreign node never serves", replica().role(NodeRole::Foreign), read().without_primary(), Excluded(Role)),
        ("an alias never serves", replica().role(NodeRole::Alias), read().without_primary(), Excluded(Role)),
        ("a node that is not promotable never serves", replica().role(NodeRole::NotPromotable), read().without_primary(), Excluded(Role)),
    ];
    for (sentence, node, read, expected) in table {
        assert_eq!(eligibility(&node, &read), expected, "{sentence}");
    }
}

#[test]
fn a_read_may_exclude_nodes_and_put_them_first_or_last() {
    use NodeFilter::*;
    let (replica, primary) = (replica(), primary());
    let excluded = Excluded(Exclusion::NotRequested);
    let last = |tier| Eligibility::Eligible(Rank { last: true, tier });
    let last_but_first = |tier| Eligibility::Preferred(Rank { last: true, tier });
    let of_replica: &[NodeId] = &[replica.id];
    let of_primary: &[NodeId] = &[primary.id];
    let read = || ReadDemand { nodes: All, ..read() };
    #[rustfmt::skip]
    let table = [
        ("a node to avoid is last", replica, read(), Avoid(of_replica), last(Tier::Fit)),
        ("another node is not", replica, read(), Avoid(of_primary), tier(Tier::Fit)),
        ("a primary to avoid is the first of the last", primary, read().prefer_primary(), Avoid(of_primary), last_but_first(Tier::Fallback)),
        ("an excepted node is excluded", replica, read(), Except(of_replica), excluded),
        ("another node is not", replica, read(), Except(of_primary), tier(Tier::Fit)),
        ("an excepted primary is not asked first", primary, read().prefer_primary(), Except(of_primary), excluded),
        ("one of the only replicas serves", replica, read(), OnlyReplicas(of_replica), tier(Tier::Fit)),
        ("another node does not", primary, read(), OnlyReplicas(of_replica), excluded),
        ("a replica that was promoted does not", primary, read(), OnlyReplicas(of_primary), excluded),
    ];
    for (sentence, node, read, nodes, expected) in table {
        assert_eq!(eligibility(&node, &ReadDemand { nodes, ..read }), expected, "{sentence}");
    }
}

#[test]
fn options_override_the_configuration() {
    let config = |nodes: usize, reads: ReadSettings| {
        let replicas = (1..nodes).map(|i| format!("postgres://app@replica-{i}/db"));
        let builder = Config::builder().primary("postgres://app@primary/db").zone("a").reads(reads);
        replicas.fold(builder, |builder, url| builder.replica(url)).build().expect("valid")
    };
    let reads = || ReadSettings { fallback: Fallback::Never, max_lag: MINUTE, ..ReadSettings::default() };
    let demand = |options: &ReadOptions, config: &Config| {
        let read = ReadDemand::new(options, config, NodeFilter::All, None, true);
        (read.fallback, read.max_lag, read.zone.map(str::to_owned), read.prefer_primary)
    };
    let zone = |zone: &str| Some(zone.to_owned());
    let none = ReadOptions::new();
    let all = ReadOptions::new().fallback(Fallback::WhenUnfit).max_lag(MINUTE * 2).zone("b").prefer_primary();
    let two = config(2, ReadSettings { prefer_zone: true, ..reads() });
    assert_eq!(demand(&none, &two), (Fallback::Never, MINUTE, zone("a"), false));
    assert_eq!(demand(&all, &two), (Fallback::WhenUnfit, MINUTE * 2, zone("b"), true));
    let zone_off = config(2, ReadSettings { prefer_zone: false, ..reads() });
    assert_eq!(demand(&none, &zone_off), (Fallback::Never, MINUTE, None, false));
    let alone = config(1, ReadSettings { prefer_zone: false, ..reads() });
    assert_eq!(demand(&all, &alone), (Fallback::Always, MINUTE * 2, zone("b"), false), "it is no fallback");
}
