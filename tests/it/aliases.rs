//! One server by several names, and a node that must never be the primary.

use pointsman::config::NodeConfig;
use pointsman::testkit::Server;
use pointsman::testkit::wait::{until, until_role};
use pointsman::topology::{NodeRole, Topology};
use pointsman::{Config, ReplicaSet};

use crate::support::{start_cluster, value};

fn role(topology: &Topology, node: &str) -> Option<NodeRole> {
    topology.node(node).map(|node| node.role)
}

fn node(server: &Server) -> NodeConfig {
    NodeConfig::replica(server.url()).unwrap().with_name(server.name())
}

async fn write(set: &ReplicaSet) -> String {
    let conn = set.write().await.expect("a primary");
    value(&conn, "SELECT pg_current_xact_id()").await.expect("a write");
    conn.node().to_owned()
}

/// Each name counted as a separate primary, which was a split brain for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_under_two_names_is_not_a_split_brain() {
    let cluster = start_cluster(1).await;
    let url = cluster.primary().url().replace("127.0.0.1", "localhost");
    let by_name = NodeConfig::primary(url).unwrap().with_name("by-name");
    let config = Config::builder().node(by_name).node(node(cluster.primary())).node(node(cluster.replica(0)));
    let set = ReplicaSet::connect(config.build().unwrap()).await.unwrap();
    until_role(&set, "primary", NodeRole::Primary).await.unwrap();
    until_role(&set, "by-name", NodeRole::Alias).await.unwrap();
    assert_eq!(write(&set).await, "primary");
    until("all is well", async || {
        let report = serde_json::to_value(set.health()).unwrap();
        report["status"] == "healthy"
    })
    .await
    .unwrap();
    let report = serde_json::to_value(set.health()).unwrap();
    let alias = &report["nodes"][0];
    assert_eq!(
        (&alias["role"], &alias["serves_reads"], &alias["serves_writes"]),
        (&"alias".into(), &false.into(), &false.into())
    );
    assert!(
        alias["reason"].as_str().is_some_and(|reason| reason.contains("the same server as primary")),
        "{alias}"
    );
    // It is alone when the other name is gone from the configuration.
    let url = cluster.primary().url().replace("127.0.0.1", "localhost");
    let by_name = NodeConfig::primary(url).unwrap().with_name("by-name");
    set.reconfigure(Config::builder().node(by_name).build().unwrap()).await.unwrap();
    until_role(&set, "by-name", NodeRole::Primary).await.unwrap();
    assert_eq!(write(&set).await, "by-name");
}

/// A proxy's writer address was configured beside the instances' own. After the failover the address showed the same
/// primary as the instance behind it, and writes were refused for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_floating_writer_address_beside_the_instances_survives_failovers() {
    let cluster = start_cluster(1).await;
    let (old, new_primary) = (cluster.primary(), cluster.replica(0));
    let proxy = old.proxy().await.unwrap();
    let writer = NodeConfig::primary(old.proxied_url().await.unwrap()).unwrap().with_name("writer");
    let config = Config::builder().node(writer).node(node(old)).node(node(new_primary)).build().unwrap();
    let set = ReplicaSet::connect(config).await.unwrap();
    until_role(&set, old.name(), NodeRole::Primary).await.unwrap();
    until_role(&set, "writer", NodeRole::Alias).await.unwrap();
    assert_eq!(write(&set).await, old.name());

    for (gone, next) in [(old, new_primary), (new_primary, old)] {
        gone.stop().await.unwrap();
        next.promote().await.unwrap();
        proxy.retarget(([127, 0, 0, 1], next.port()).into()).await.unwrap();
        proxy.reset().await.unwrap();
        proxy.pass().await.unwrap();
        until_role(&set, next.name(), NodeRole::Primary).await.unwrap();
        until_role(&set, "writer", NodeRole::Alias).await.unwrap();
        assert_eq!(write(&set).await, next.name());
        gone.rejoin(next).await.unwrap();
        until_role(&set, gone.name(), NodeRole::Replica).await.unwrap();
        assert_eq!(write(&set).await, next.name());
    }
    until("all is well", async || serde_json::to_value(set.health()).unwrap()["status"] == "healthy")
        .await
        .unwrap();
}

/// A delayed replica that was promoted by mistake made the true primary a stale one, and took its writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_not_promotable_takes_no_write_when_it_is_promoted() {
    let cluster = start_cluster(2).await;
    let (primary, delayed) = (cluster.primary(), cluster.replica(0));
    let first = NodeConfig::primary(primary.url()).unwrap().with_name(primary.name());
    let delayed_node = node(delayed).with_promotable(false);
    let config = Config::builder().node(first).node(delayed_node).node(node(cluster.replica(1)));
    let set = ReplicaSet::connect(config.build().unwrap()).await.unwrap();
    until_role(&set, delayed.name(), NodeRole::Replica).await.unwrap();
    delayed.promote().await.unwrap();
    until_role(&set, delayed.name(), NodeRole::NotPromotable).await.unwrap();
    assert_eq!(write(&set).await, primary.name());
    let status = set.topology().node(delayed.name()).cloned().unwrap();
    assert!(!status.serves_reads && !status.serves_writes);
    assert!(status.reason.is_some_and(|reason| reason.contains("promotable = false")));
    // The primary is gone, and the node is still no primary.
    primary.stop().await.unwrap();
    until_role(&set, primary.name(), NodeRole::Unknown).await.unwrap();
    assert_eq!(role(&set.topology(), delayed.name()), Some(NodeRole::NotPromotable));
    primary.start().await.unwrap();
    until_role(&set, primary.name(), NodeRole::Primary).await.unwrap();
    delayed.rebuild(primary).await.unwrap();
    until_role(&set, delayed.name(), NodeRole::Replica).await.unwrap();
    assert_eq!(write(&set).await, primary.name());
}
