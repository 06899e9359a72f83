//! Incidents in which another cluster takes the place of the set's own.

use std::net::SocketAddr;

use pointsman::CheckoutError;
use pointsman::testkit::wait::{until_role, until_topology, until_writable};
use pointsman::testkit::{Cluster, Server};
use pointsman::topology::{NodeRole, PrimaryStatus};
use tokio::time::Instant;

use crate::fixture::{CREATE_ACKS, count_acks, proxied_fixture, write_row};
use crate::test_error::TestResult;

/// Leads the address of a server to another one, and closes the sessions through it.
async fn lead(address: &Server, to: &Server) -> TestResult {
    let proxy = address.proxy().await?;
    proxy.retarget(SocketAddr::from(([127, 0, 0, 1], to.port()))).await?;
    proxy.reset().await?;
    Ok(())
}

/// After `pg_upgrade` or a switch to another cluster, all nodes stayed fenced until the program was restarted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_replaces_the_old_one_on_every_node_is_adopted() -> TestResult {
    let (cluster, set) = proxied_fixture().await?;
    let new = Cluster::builder().replicas(2).start().await?;
    new.primary().execute(CREATE_ACKS).await?;
    new.wait_caught_up().await?;
    write_row(&set, 1).await?;

    // One node after the other. As long as one shows the old cluster, the others are foreign.
    for (old, new) in cluster.servers()[1..].iter().zip(&new.servers()[1..]) {
        lead(old, new).await?;
        until_role(&set, old.name(), NodeRole::Foreign).await?;
    }
    let error = set.write().await.expect_err("most nodes contradict the cluster that is known");
    assert!(matches!(error, CheckoutError::IdentifierMismatch { .. }), "{error}");

    // The last node follows: all are foreign, and after a while the new cluster is adopted.
    let began = Instant::now();
    lead(cluster.primary(), new.primary()).await?;
    until_topology(&set, "all are foreign", |topology| {
        topology.nodes.iter().all(|node| node.role == NodeRole::Foreign)
    })
    .await?;
    let error = set.read().await.expect_err("no node belongs to the set");
    assert!(matches!(error, CheckoutError::NoNode { .. }), "{error}");
    until_writable(&set).await?;
    println!("another cluster on every node: adopted after {:?}", began.elapsed());
    assert!(
        matches!(&set.topology().primary, PrimaryStatus::One { node, .. } if node == cluster.primary().name())
    );
    // Writes go to the new cluster alone.
    write_row(&set, 2).await?;

    assert_eq!(
        (count_acks(new.primary(), "true").await?, count_acks(cluster.primary(), "true").await?),
        (1, 1)
    );
    Ok(())
}
