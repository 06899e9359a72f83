//! Incidents of histories that contradict each other: two primaries with one timeline, a timeline that no longer
//! exists, a server that was initialised again, and an operator's remedy.

use pointsman::config::NodeConfig;
use pointsman::testkit::{Cluster, Server};
use pointsman::topology::{NodeRole, PrimaryStatus, Topology};
use pointsman::{CheckoutError, ReplicaSet};

use crate::load::{config_of, is_split_brain, scene, until, until_writable, write_row};

fn role(topology: &Topology, server: &Server) -> Option<NodeRole> {
    topology.node(server.name()).map(|node| node.role)
}

async fn until_lost(set: &ReplicaSet, server: &Server) {
    until(set, "it is lost", |topology| role(topology, server) == Some(NodeRole::Unknown)).await;
}

async fn until_primary(set: &ReplicaSet, server: &Server) {
    until(set, "it is the primary", |topology| role(topology, server) == Some(NodeRole::Primary)).await;
}

/// Returns `true` if writes are refused, and the error names both nodes.
async fn refused(set: &ReplicaSet, one: &Server, other: &Server) -> bool {
    match set.write().await {
        Ok(_) => false,
        Err(error) => {
            let text = error.to_string();
            is_split_brain(&error) && text.contains(one.name()) && text.contains(other.name())
        }
    }
}

/// A conflict was noticed only while both were visible. As soon as one of them missed two probes, the other one
/// silently became the primary, and the first one's acknowledged writes were gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_primary_by_one_timeline_takes_no_write_while_the_first_is_out_of_sight() {
    let (cluster, set) = scene(2).await;
    let (one, other) = (cluster.replica(0), cluster.replica(1));
    cluster.primary().kill().await.expect("killed");
    one.promote().await.expect("promoted");
    until_primary(&set, one).await;
    write_row(&set, 1).await.expect("acknowledged by the first");
    one.kill().await.expect("killed");
    until_lost(&set, one).await;
    other.promote().await.expect("promoted, to the same timeline");
    until(&set, "it contends", |topology| role(topology, other) == Some(NodeRole::Conflicting)).await;
    assert!(refused(&set, one, other).await, "{:#?}", set.topology());

    // They take turns, and it is the same conflict.
    one.start().await.expect("started");
    until(&set, "both contend", |topology| {
        [one, other].iter().all(|server| role(topology, server) == Some(NodeRole::Conflicting))
    })
    .await;
    other.stop().await.expect("stopped");
    until_lost(&set, other).await;
    assert!(refused(&set, one, other).await, "stopping is no decision: {:#?}", set.topology());

    // Rebuilt as a standby, it is gone for good.
    other.rebuild(one).await.expect("rebuilt");
    until_primary(&set, one).await;
    until_writable(&set).await;
    write_row(&set, 2).await.expect("a write");
    assert_eq!(one.query_value("SELECT count(*) FROM acks").await.expect("an answer"), "2");
}

/// The other ways to end a conflict: one of the two leaves the configuration, or the operator decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_of_two_primaries_ends_when_one_leaves_the_configuration() {
    let (cluster, set) = scene(2).await;
    let (one, other) = (cluster.replica(0), cluster.replica(1));
    cluster.primary().kill().await.expect("killed");
    one.promote().await.expect("promoted");
    until_primary(&set, one).await;
    one.kill().await.expect("killed");
    until_lost(&set, one).await;
    other.promote().await.expect("promoted");
    until(&set, "it contends", |topology| role(topology, other) == Some(NodeRole::Conflicting)).await;
    set.reconfigure(config_of([other]).build().expect("valid")).await.expect("reconfigured");
    until_primary(&set, other).await;
    write_row(&set, 1).await.expect("a write");
}

/// The highest timeline was remembered for ever. So a replica that was promoted by mistake and rebuilt left the one
/// true primary fenced until the program was restarted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_promoted_by_mistake_and_rebuilt_gives_the_primary_back() {
    let (cluster, set) = scene(2).await;
    let (primary, mistaken) = (cluster.primary(), cluster.replica(0));
    mistaken.promote().await.expect("promoted");
    until_primary(&set, mistaken).await;
    assert_eq!(role(&set.topology(), primary), Some(NodeRole::StalePrimary));
    // An absent node proves nothing.
    mistaken.stop().await.expect("stopped");
    until_lost(&set, mistaken).await;
    assert_eq!(role(&set.topology(), primary), Some(NodeRole::StalePrimary));
    assert_eq!(set.topology().primary, PrimaryStatus::None);

    mistaken.rebuild(primary).await.expect("rebuilt");
    until_primary(&set, primary).await;
    until(&set, "all are well", |topology| topology.nodes.iter().all(|node| node.serves_reads)).await;
    write_row(&set, 1).await.expect("a write");
    assert_eq!(primary.query_value("SELECT count(*) FROM acks").await.expect("an answer"), "1");
}

/// A leader that was paused is replaced. It then leads again on its own, lower timeline, and the other one is rewound
/// to follow it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_gets_the_lead_back_on_a_lower_timeline_takes_writes() {
    let (cluster, set) = scene(1).await;
    let (leader, other) = (cluster.primary(), cluster.replica(0));
    leader.pause().await.expect("paused");
    other.promote().await.expect("promoted");
    until_primary(&set, other).await;
    write_row(&set, 1).await.expect("a write that will be lost");
    leader.resume().await.expect("resumed");
    until(&set, "it is fenced", |topology| role(topology, leader) == Some(NodeRole::StalePrimary)).await;
    other.rejoin(leader).await.expect("rewound");
    until_primary(&set, leader).await;
    write_row(&set, 2).await.expect("a write");
    assert_eq!(leader.query_value("SELECT min(id) FROM acks").await.expect("an answer"), "2");
}

/// The configured primary outweighed all observations. A host that was initialised again was adopted against three
/// nodes that agreed, and the writes went to the empty cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_initialised_anew_is_not_believed_against_three_others() {
    let (cluster, empty) =
        tokio::try_join!(Cluster::builder().replicas(2).start(), Cluster::builder().start())
            .expect("clusters");
    cluster.primary().execute("CREATE TABLE acks (id bigint PRIMARY KEY)").await.expect("a table");
    let node = |server: &Server| NodeConfig::replica(server.url()).expect("a URL").with_name(server.name());
    let initialised_anew = NodeConfig::primary(empty.primary().url()).expect("a URL").with_name("anew");
    let config = cluster
        .servers()
        .iter()
        .fold(pointsman::Config::builder().node(initialised_anew), |config, server| {
            config.node(node(server))
        });
    let set = ReplicaSet::connect(config.build().expect("valid")).await.expect("a set");
    until_primary(&set, cluster.primary()).await;
    let topology = set.topology();
    assert_eq!(topology.node("anew").map(|node| node.role), Some(NodeRole::Foreign), "{topology:#?}");
    write_row(&set, 1).await.expect("a write on the cluster of the three");
    assert_eq!(cluster.primary().query_value("SELECT count(*) FROM acks").await.expect("an answer"), "1");
}

/// With the old primary fenced and the new one dead, the remaining nodes go on serving reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_serve_while_the_old_primary_is_fenced_and_the_new_one_is_dead() {
    let (cluster, set) = scene(2).await;
    let (old, heir, follower) = (cluster.primary(), cluster.replica(0), cluster.replica(1));
    old.pause().await.expect("paused");
    heir.promote().await.expect("promoted");
    follower.follow(heir).await.expect("it follows");
    until_primary(&set, heir).await;
    heir.kill().await.expect("killed");
    old.resume().await.expect("resumed");
    until(&set, "the old one is fenced", |t| role(t, old) == Some(NodeRole::StalePrimary)).await;
    until_lost(&set, heir).await;
    for _ in 0..20 {
        assert_eq!(set.read().await.expect("a read").node(), follower.name());
    }
}

/// The identity and the highest timeline were for ever: after a switch to another cluster everything stayed fenced
/// until a restart. The first configured node decided a tie of identities.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_lets_the_set_forget_its_identity_and_its_timelines() {
    let (cluster, other) =
        tokio::try_join!(Cluster::builder().replicas(1).start(), Cluster::builder().start())
            .expect("clusters");
    let (primary, replica, moved) = (cluster.primary(), cluster.replica(0), other.primary());
    for server in [primary, moved] {
        server.execute("CREATE TABLE acks (id bigint PRIMARY KEY)").await.expect("a table");
    }
    cluster.wait_caught_up().await.expect("caught up");
    let set = ReplicaSet::connect(config_of(cluster.servers()).build().expect("valid")).await.expect("a set");
    until_primary(&set, primary).await;

    // A completely different cluster: only the operator's command makes the set adopt it.
    let node = NodeConfig::primary(moved.url()).expect("a URL").with_name("moved");
    let config = pointsman::Config::builder().node(node).build().expect("valid");
    set.reconfigure(config).await.expect("reconfigured");
    let error = set.write().await.expect_err("it is another cluster");
    assert!(matches!(error, CheckoutError::IdentifierMismatch { .. }), "{error}");
    assert!(
        error.to_string().contains("moved shows ") && error.to_string().contains("forget_history"),
        "{error}"
    );
    let topology = set.forget_history().await;
    assert!(matches!(&topology.primary, PrimaryStatus::One { node, .. } if node == "moved"), "{topology:#?}");
    write_row(&set, 1).await.expect("a write on the cluster that it moved to");
    assert_eq!(moved.query_value("SELECT count(*) FROM acks").await.expect("an answer"), "1");

    // A tie is refused from the beginning, and the error lists each node's identity.
    let servers = || [moved, primary].into_iter();
    let names = ["moved", "first"];
    let nodes = servers().zip(names).map(|(server, name)| {
        let node = if name == "moved" {
            NodeConfig::primary(server.url())
        } else {
            NodeConfig::replica(server.url())
        };
        node.expect("a URL").with_name(name)
    });
    let tie = nodes.fold(pointsman::Config::builder(), |config, node| config.node(node));
    let tied = ReplicaSet::connect(tie.build().expect("valid")).await.expect("a set");
    let error = tied.write().await.expect_err("one against one");
    assert!(matches!(error, CheckoutError::IdentifierMismatch { .. }), "{error}");
    assert!(names.iter().all(|name| error.to_string().contains(&format!("{name} shows "))), "{error}");
    let reasons: Vec<_> = tied.topology().nodes.iter().filter_map(|node| node.reason.clone()).collect();
    assert!(
        reasons.iter().all(|reason| reason.contains("system identifier")) && reasons.len() == 2,
        "{reasons:?}"
    );

    // A higher timeline whose only witness is gone for good.
    let set = ReplicaSet::connect(config_of(cluster.servers()).build().expect("valid")).await.expect("a set");
    replica.promote().await.expect("promoted by mistake");
    until_primary(&set, replica).await;
    replica.stop().await.expect("stopped for good");
    set.reconfigure(config_of([primary]).build().expect("valid")).await.expect("reconfigured");
    assert_eq!(role(&set.topology(), primary), Some(NodeRole::StalePrimary));
    set.forget_history().await;
    until_primary(&set, primary).await;
    write_row(&set, 2).await.expect("a write");
    assert_eq!(primary.query_value("SELECT count(*) FROM acks").await.expect("an answer"), "1");
}
