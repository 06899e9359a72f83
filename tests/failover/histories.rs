//! Incidents of histories that contradict each other: two primaries with one timeline, a timeline that no longer
//! exists, a server that was initialised again, and an operator's remedy.

use pointsman::config::{ConfigBuilder, NodeConfig};
use pointsman::testkit::wait::{until_all_serve, until_role, until_topology, until_writable};
use pointsman::testkit::{Cluster, Server};
use pointsman::topology::{NodeRole, PrimaryStatus, Topology};
use pointsman::{CheckoutError, Config, ReplicaSet};

use crate::fixture::{
    CREATE_ACKS, config_of, count_acks, fixture, is_split_brain, replica, until_primary, until_role_unknown,
    write_row,
};
use crate::test_error::TestResult;

fn role(topology: &Topology, server: &Server) -> Option<NodeRole> {
    topology.node(server.name()).map(|node| node.role)
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
async fn a_second_primary_on_the_same_timeline_takes_no_write_while_the_first_is_down() -> TestResult {
    let (cluster, set) = fixture(2).await?;
    let (one, other) = (cluster.replica(0), cluster.replica(1));

    // Break.
    cluster.primary().kill().await?;
    one.promote().await?;
    until_primary(&set, one).await?;
    write_row(&set, 1).await?;
    one.kill().await?;
    until_role_unknown(&set, one).await?;
    other.promote().await?;
    until_role(&set, other.name(), NodeRole::Conflicting).await?;

    assert!(refused(&set, one, other).await, "{:#?}", set.topology());

    // They take turns, and it is the same conflict.
    one.start().await?;
    until_topology(&set, "both conflict", |topology| {
        [one, other].iter().all(|server| role(topology, server) == Some(NodeRole::Conflicting))
    })
    .await?;

    // Break.
    other.stop().await?;
    until_role_unknown(&set, other).await?;

    assert!(refused(&set, one, other).await, "stopping is no decision: {:#?}", set.topology());

    // Rebuilt as a standby, it is gone for good.
    other.rebuild(one).await?;
    until_primary(&set, one).await?;
    until_writable(&set).await?;
    write_row(&set, 2).await?;

    assert_eq!(count_acks(one, "true").await?, 2);
    Ok(())
}

/// The other ways to end a conflict: one of the two leaves the configuration, or the operator decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_of_two_primaries_ends_when_one_leaves_the_configuration() -> TestResult {
    let (cluster, set) = fixture(2).await?;
    let (one, other) = (cluster.replica(0), cluster.replica(1));

    // Break.
    cluster.primary().kill().await?;
    one.promote().await?;
    until_primary(&set, one).await?;
    one.kill().await?;
    until_role_unknown(&set, one).await?;
    other.promote().await?;
    until_role(&set, other.name(), NodeRole::Conflicting).await?;
    set.reconfigure(config_of([other]).build()?).await?;
    until_primary(&set, other).await?;
    write_row(&set, 1).await?;
    Ok(())
}

/// The highest timeline was remembered for ever. So a replica that was promoted by mistake and rebuilt left the one
/// true primary fenced until the program was restarted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_promoted_by_mistake_and_rebuilt_gives_the_primary_back() -> TestResult {
    let (cluster, set) = fixture(2).await?;
    let (primary, mistaken) = (cluster.primary(), cluster.replica(0));

    // Break.
    mistaken.promote().await?;
    until_primary(&set, mistaken).await?;

    assert_eq!(role(&set.topology(), primary), Some(NodeRole::StalePrimary));

    // An absent node proves nothing.
    mistaken.stop().await?;
    until_role_unknown(&set, mistaken).await?;

    assert_eq!(role(&set.topology(), primary), Some(NodeRole::StalePrimary));
    assert_eq!(set.topology().primary, PrimaryStatus::None);

    // Restore.
    mistaken.rebuild(primary).await?;
    until_primary(&set, primary).await?;
    until_all_serve(&set).await?;
    write_row(&set, 1).await?;

    assert_eq!(count_acks(primary, "true").await?, 1);
    Ok(())
}

/// A leader that was paused is replaced. It then leads again on its own, lower timeline, and the other one is rewound
/// to follow it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_takes_writes_again_after_the_server_on_the_higher_timeline_follows_it() -> TestResult {
    let (cluster, set) = fixture(1).await?;
    let (leader, other) = (cluster.primary(), cluster.replica(0));

    // Break.
    leader.pause().await?;
    other.promote().await?;
    until_primary(&set, other).await?;
    write_row(&set, 1).await?;

    // Restore.
    leader.resume().await?;
    until_role(&set, leader.name(), NodeRole::StalePrimary).await?;
    other.rejoin(leader).await?;
    until_primary(&set, leader).await?;
    write_row(&set, 2).await?;

    assert_eq!(leader.query_value("SELECT min(id) FROM acks").await?, "2");
    Ok(())
}

/// The configured primary outweighed all observations. A host that was initialised again was adopted against three
/// nodes that agreed, and the writes went to the empty cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_initialised_again_is_foreign_to_three_nodes_that_agree() -> TestResult {
    let (cluster, empty) =
        tokio::try_join!(Cluster::builder().replicas(2).start(), Cluster::builder().start())?;
    cluster.primary().execute(CREATE_ACKS).await?;
    let initialised_again = NodeConfig::primary(empty.primary().url())?.with_name("again");
    let add = |config: ConfigBuilder, server: &Server| config.node(replica(server.url(), server.name()));
    let config = cluster.servers().iter().fold(Config::builder().node(initialised_again), add);
    let set = ReplicaSet::connect(config.build()?).await?;
    until_primary(&set, cluster.primary()).await?;
    let topology = set.topology();
    assert_eq!(topology.node("again").map(|node| node.role), Some(NodeRole::Foreign), "{topology:#?}");
    write_row(&set, 1).await?;
    assert_eq!(cluster.primary().query_value("SELECT count(*) FROM acks").await?, "1");
    Ok(())
}

/// With the old primary fenced and the new one dead, the remaining nodes go on serving reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_serve_while_the_old_primary_is_fenced_and_the_new_one_is_dead() -> TestResult {
    let (cluster, set) = fixture(2).await?;
    let (old, new_primary, follower) = (cluster.primary(), cluster.replica(0), cluster.replica(1));

    // Break.
    old.pause().await?;
    new_primary.promote().await?;
    follower.follow(new_primary).await?;
    until_primary(&set, new_primary).await?;
    new_primary.kill().await?;

    // Restore.
    old.resume().await?;
    until_role(&set, old.name(), NodeRole::StalePrimary).await?;
    until_role_unknown(&set, new_primary).await?;

    for _ in 0..20 {
        assert_eq!(set.read().await?.node(), follower.name());
    }
    Ok(())
}

/// The identity and the highest timeline were for ever: after a switch to another cluster everything stayed fenced
/// until a restart. The first configured node decided a tie of identities.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forget_history_adopts_another_cluster_and_a_lower_timeline() -> TestResult {
    let (cluster, other) =
        tokio::try_join!(Cluster::builder().replicas(1).start(), Cluster::builder().start())?;
    let (primary, mistaken, moved) = (cluster.primary(), cluster.replica(0), other.primary());
    for server in [primary, moved] {
        server.execute(CREATE_ACKS).await?;
    }
    cluster.wait_caught_up().await?;
    let set = ReplicaSet::connect(config_of(cluster.servers()).build()?).await?;
    until_primary(&set, primary).await?;

    // A completely different cluster: only the operator's command makes the set adopt it.
    let node = NodeConfig::primary(moved.url())?.with_name("moved");
    let config = Config::builder().node(node).build()?;
    set.reconfigure(config).await?;
    let error = set.write().await.expect_err("it is another cluster");
    assert!(matches!(error, CheckoutError::IdentifierMismatch { .. }), "{error}");
    assert!(
        error.to_string().contains("moved shows ") && error.to_string().contains("forget_history"),
        "{error}"
    );
    let topology = set.forget_history().await;
    assert!(matches!(&topology.primary, PrimaryStatus::One { node, .. } if node == "moved"), "{topology:#?}");
    write_row(&set, 1).await?;
    assert_eq!(count_acks(moved, "true").await?, 1);

    // A tie is refused from the beginning, and the error lists each node's identity.
    let names = ["moved", "first"];
    let one = NodeConfig::primary(moved.url())?.with_name("moved");
    let tie = Config::builder().node(one).node(replica(primary.url(), "first"));
    let tied = ReplicaSet::connect(tie.build()?).await?;
    let error = tied.write().await.expect_err("one against one");
    assert!(matches!(error, CheckoutError::IdentifierMismatch { .. }), "{error}");
    assert!(names.iter().all(|name| error.to_string().contains(&format!("{name} shows "))), "{error}");
    let reasons: Vec<_> = tied.topology().nodes.iter().filter_map(|node| node.reason.clone()).collect();
    assert!(
        reasons.iter().all(|reason| reason.contains("system identifier")) && reasons.len() == 2,
        "{reasons:?}"
    );

    // A higher timeline whose only witness is gone for good.
    let set = ReplicaSet::connect(config_of(cluster.servers()).build()?).await?;

    // Break.
    mistaken.promote().await?;
    until_primary(&set, mistaken).await?;
    mistaken.stop().await?;
    set.reconfigure(config_of([primary]).build()?).await?;

    assert_eq!(role(&set.topology(), primary), Some(NodeRole::StalePrimary));

    // Restore.
    set.forget_history().await;
    until_primary(&set, primary).await?;
    write_row(&set, 2).await?;

    assert_eq!(count_acks(primary, "true").await?, 1);
    Ok(())
}
