//! Waits for a condition of a test or of a set, never for a time.
//!
//! Each wait has a time limit. Its error names the condition, the line that waited, and the state that was found instead.

use std::fmt::Debug;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::error::{Result, TestkitError};
use crate::ReplicaSet;
use crate::topology::{Health, NodeRole, NodeStatus, PrimaryStatus, Topology};

/// Time limit of each wait.
///
/// It is long because a busy machine is slow, but not broken. Only a test that fails waits that long.
const LIMIT: Duration = Duration::from_secs(60);

/// Time between two checks of a condition that cannot be subscribed to.
const INTERVAL: Duration = Duration::from_millis(5);

/// Waits until `holds` returns `true`.
///
/// # Errors
///
/// [`TestkitError::NotMet`] after a minute, also if `holds` itself does not return.
///
/// # Examples
///
/// ```
/// use pointsman::testkit::wait;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> pointsman::testkit::Result<()> {
/// let mut checks = 0;
/// wait::until("it was checked three times", async || {
///     checks += 1;
///     checks == 3
/// })
/// .await?;
/// # Ok(()) }
/// ```
#[track_caller]
pub fn until(condition: &str, mut holds: impl AsyncFnMut() -> bool) -> impl Future<Output = Result<()>> {
    let not_met = not_met(condition.to_owned());
    async move {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            match timeout_at(deadline, holds()).await {
                Ok(true) => return Ok(()),
                Ok(false) => sleep(INTERVAL).await,
                Err(_) => break,
            }
        }
        Err(not_met(None))
    }
}

/// Waits until the topology of a set meets a condition.
///
/// # Errors
///
/// [`TestkitError::NotMet`] with the topology after a minute, or if the set is closed.
///
/// # Examples
///
/// ```no_run
/// use pointsman::testkit::wait;
///
/// # async fn example(set: pointsman::ReplicaSet) -> pointsman::testkit::Result<()> {
/// wait::until_topology(&set, "only the primary serves reads", |topology| topology.reads_on_primary_only()).await?;
/// # Ok(()) }
/// ```
#[track_caller]
pub fn until_topology(
    set: &ReplicaSet,
    condition: impl Into<String>,
    holds: impl FnMut(&Arc<Topology>) -> bool,
) -> impl Future<Output = Result<()>> {
    let not_met = not_met(condition.into());
    async move {
        let mut topology = set.watch();
        match timeout(LIMIT, topology.wait_for(holds)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(not_met(Some(&set.topology()))),
        }
    }
}

/// Waits until the status of a node meets a condition.
///
/// # Errors
///
/// As [`until_topology`]. A node that the set does not know meets no condition.
///
/// # Examples
///
/// ```no_run
/// use pointsman::testkit::wait;
///
/// # async fn example(set: pointsman::ReplicaSet) -> pointsman::testkit::Result<()> {
/// wait::until_node(&set, "replica-1", "is left out", |node| !node.serves_reads).await?;
/// # Ok(()) }
/// ```
#[track_caller]
pub fn until_node(
    set: &ReplicaSet,
    node: &str,
    condition: &str,
    mut holds: impl FnMut(&NodeStatus) -> bool,
) -> impl Future<Output = Result<()>> {
    until_topology(set, format!("{node} {condition}"), move |topology| {
        topology.node(node).is_some_and(&mut holds)
    })
}

/// Waits until a node has the given health.
///
/// # Errors
///
/// As [`until_node`].
///
/// # Examples
///
/// ```no_run
/// use pointsman::testkit::wait;
/// use pointsman::topology::Health;
///
/// # async fn example(cluster: pointsman::testkit::Cluster, set: pointsman::ReplicaSet) -> pointsman::testkit::Result<()> {
/// cluster.replica(0).kill().await?;
/// wait::until_health(&set, cluster.replica(0).name(), Health::Down).await?;
/// # Ok(()) }
/// ```
#[track_caller]
pub fn until_health(set: &ReplicaSet, node: &str, health: Health) -> impl Future<Output = Result<()>> {
    until_topology(set, format!("the health of {node} is: {health}"), move |topology| {
        topology.node(node).is_some_and(|node| node.health == health)
    })
}

/// Waits until a node has the given role.
///
/// # Errors
///
/// As [`until_node`].
///
/// # Examples
///
/// ```no_run
/// use pointsman::testkit::wait;
/// use pointsman::topology::NodeRole;
///
/// # async fn example(cluster: pointsman::testkit::Cluster, set: pointsman::ReplicaSet) -> pointsman::testkit::Result<()> {
/// cluster.replica(0).promote().await?;
/// wait::until_role(&set, cluster.primary().name(), NodeRole::StalePrimary).await?;
/// # Ok(()) }
/// ```
#[track_caller]
pub fn until_role(set: &ReplicaSet, node: &str, role: NodeRole) -> impl Future<Output = Result<()>> {
    until_topology(set, format!("the role of {node} is: {role}"), move |topology| {
        topology.node(node).is_some_and(|node| node.role == role)
    })
}

/// Waits until every node serves reads.
///
/// # Errors
///
/// As [`until_topology`].
///
/// # Examples
///
/// ```no_run
/// use pointsman::testkit::wait;
///
/// # async fn example(cluster: pointsman::testkit::Cluster, set: pointsman::ReplicaSet) -> pointsman::testkit::Result<()> {
/// cluster.replica(0).restart().await?;
/// wait::until_all_serve(&set).await?;
/// # Ok(()) }
/// ```
#[track_caller]
pub fn until_all_serve(set: &ReplicaSet) -> impl Future<Output = Result<()>> {
    until_topology(set, "every node serves reads", |topology| {
        topology.nodes.iter().all(|node| node.serves_reads)
    })
}

/// Waits until the set knows that there is no primary.
///
/// # Errors
///
/// As [`until_topology`].
///
/// # Examples
///
/// ```no_run
/// use pointsman::testkit::wait;
///
/// # async fn example(cluster: pointsman::testkit::Cluster, set: pointsman::ReplicaSet) -> pointsman::testkit::Result<()> {
/// cluster.primary().kill().await?;
/// wait::until_no_primary(&set).await?;
/// # Ok(()) }
/// ```
#[track_caller]
pub fn until_no_primary(set: &ReplicaSet) -> impl Future<Output = Result<()>> {
    until_topology(set, "there is no primary", |topology| topology.primary == PrimaryStatus::None)
}

/// Waits until a checkout for a write succeeds.
///
/// # Errors
///
/// [`TestkitError::NotMet`] with the last error after a minute.
///
/// # Examples
///
/// ```no_run
/// use pointsman::testkit::wait;
///
/// # async fn example(cluster: pointsman::testkit::Cluster, set: pointsman::ReplicaSet) -> pointsman::testkit::Result<()> {
/// cluster.primary().restart().await?;
/// wait::until_writable(&set).await?;
/// # Ok(()) }
/// ```
#[track_caller]
pub fn until_writable(set: &ReplicaSet) -> impl Future<Output = Result<()>> {
    let not_met = not_met("a write gets a connection".to_owned());
    async move {
        let deadline = Instant::now() + LIMIT;
        loop {
            match set.write().await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(not_met(Some(&error))),
                Err(_) => sleep(INTERVAL).await,
            }
        }
    }
}

/// Prepares the error of a wait, with the line that called it.
#[track_caller]
fn not_met(condition: String) -> impl FnOnce(Option<&dyn Debug>) -> TestkitError {
    let caller = Location::caller();
    move |found| TestkitError::NotMet {
        condition,
        caller,
        limit: LIMIT,
        found: found.map(|found| format!("; instead: {found:#?}")).unwrap_or_default(),
    }
}
