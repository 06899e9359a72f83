//! Incidents in which the program ends and another run of it begins (`topology.memory_file`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pointsman::config::NodeConfig;
use pointsman::health::MemoryReport;
use pointsman::testkit::wait::{until, until_all_serve, until_role, until_topology};
use pointsman::testkit::{Cluster, Server};
use pointsman::topology::NodeRole;
use pointsman::{CheckoutError, Config, ReplicaSet, WriteOptions};

use crate::fixture::{
    CREATE_ACKS, config_of, count_acks, fixture_with, is_split_brain, promote, until_primary,
    until_serves_writes, write_row,
};
use crate::test_error::TestResult;

/// A folder with a memory file, and a program that has run with it.
struct Run {
    cluster: Arc<Cluster>,
    set: ReplicaSet,
    folder: tempfile::TempDir,
}

impl Run {
    async fn begin() -> TestResult<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("memory");
        let (cluster, set) = fixture_with(2, |config| config.memory_file(path)).await?;
        until_saved(&set).await?;
        Ok(Self { cluster: Arc::new(cluster), set, folder })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("memory")
    }

    /// Ends the program, and begins another run of it with a memory file or without one.
    async fn restart(&mut self, file: Option<&Path>) -> TestResult {
        self.set.close().await?;
        let config = config_of(self.cluster.servers());
        let config = match file {
            Some(file) => config.memory_file(file),
            None => config,
        };
        self.set = ReplicaSet::connect(config.build()?).await?;
        Ok(())
    }
}

fn report(set: &ReplicaSet) -> MemoryReport {
    set.health().memory.expect("a memory file is configured")
}

async fn until_saved(set: &ReplicaSet) -> TestResult {
    Ok(until("the memory file is up to date", async || report(set).saved).await?)
}

async fn until_file(path: &Path, content: &str) -> TestResult {
    let has = async || std::fs::read_to_string(path).is_ok_and(|text| text.contains(content));
    Ok(until("the memory file has it", has).await?)
}

fn role(set: &ReplicaSet, server: &Server) -> Option<NodeRole> {
    set.topology().node(server.name()).map(|node| node.role)
}

async fn write_now(set: &ReplicaSet) -> Result<(), CheckoutError> {
    set.write_with(&WriteOptions::new().no_wait()).await.map(drop)
}

/// Without a file, the program that starts takes the old primary for the primary: nothing shows the promotion.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_program_that_reaches_the_old_primary_alone_writes_there_only_without_a_memory()
-> TestResult {
    let mut run = Run::begin().await?;
    let file = run.path();
    let cluster = Arc::clone(&run.cluster);
    let (old, new_primary, other) = (cluster.primary(), cluster.replica(0), cluster.replica(1));

    // Break.
    promote(&run.set, new_primary).await?;
    until_file(&file, "timeline = 2").await?;
    new_primary.stop().await?;
    other.stop().await?;

    run.restart(None).await?;
    until_primary(&run.set, old).await?;
    write_row(&run.set, -1).await?;
    assert_eq!(count_acks(old, "id = -1").await?, 1, "the documented limit");
    assert_eq!(run.set.health().memory, None);

    run.restart(Some(&file)).await?;
    assert_eq!(role(&run.set, old), Some(NodeRole::StalePrimary), "{:#?}", run.set.topology());
    let error = write_now(&run.set).await.expect_err("no primary is in sight");
    assert!(matches!(error, CheckoutError::NoPrimary { .. }), "{error}");
    assert_eq!(report(&run.set).error, None);

    // Restore.
    new_primary.start().await?;
    until_serves_writes(&run.set, new_primary).await?;
    write_row(&run.set, -2).await?;
    assert_eq!(count_acks(new_primary, "id < 0").await?, 1);
    old.rejoin(new_primary).await?;
    other.start().await?;
    other.follow(new_primary).await?;
    until_all_serve(&run.set).await?;
    Ok(())
}

/// The program that started took the one of the two primaries that it reached.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_program_remembers_a_split_brain_of_which_it_reaches_one_side() -> TestResult {
    let mut run = Run::begin().await?;
    let file = run.path();
    let cluster = Arc::clone(&run.cluster);
    let (one, other) = (cluster.replica(0), cluster.replica(1));

    // Break.
    cluster.primary().kill().await?;
    let (first, second) = tokio::join!(one.promote(), other.promote());
    first.and(second)?;
    until_topology(&run.set, "both conflict", |topology| {
        topology.nodes.iter().filter(|node| node.role == NodeRole::Conflicting).count() == 2
    })
    .await?;
    let wrote_twice =
        async || std::fs::read_to_string(&file).is_ok_and(|text| text.matches("wrote = true").count() == 2);
    until("the file has both", wrote_twice).await?;
    other.stop().await?;

    run.restart(Some(&file)).await?;
    let error = write_now(&run.set).await.expect_err("the other one has writes, too");
    assert!(is_split_brain(&error), "{error}");

    // Restore: an operator decides.
    run.set.forget_history().await;
    until_primary(&run.set, one).await?;
    until_saved(&run.set).await?;
    let text = std::fs::read_to_string(&file)?;
    assert_eq!(text.matches("wrote = true").count(), 1, "{text}");
    run.restart(Some(&file)).await?;
    until_primary(&run.set, one).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_used_is_reported_and_stops_nothing() -> TestResult {
    let mut run = Run::begin().await?;
    let (file, cluster) = (run.path(), Arc::clone(&run.cluster));
    let good = std::fs::read_to_string(&file)?;
    assert!(!good.contains("password") && !good.contains("open-sesame"), "{good}");

    // Missing.
    std::fs::remove_file(&file)?;
    run.restart(Some(&file)).await?;
    write_row(&run.set, 1).await?;
    until_saved(&run.set).await?;
    assert_eq!(report(&run.set).found, None);
    assert!(file.exists());

    // Damaged.
    std::fs::write(&file, &good[..good.len() / 2])?;
    run.restart(Some(&file)).await?;
    write_row(&run.set, 2).await?;
    until_saved(&run.set).await?;
    assert!(report(&run.set).found.is_some_and(|found| found.contains("memory.corrupt")));
    assert_eq!(std::fs::read_to_string(run.folder.path().join("memory.corrupt"))?, &good[..good.len() / 2]);

    // Of another cluster, by its identifier.
    let system_identifier =
        cluster.primary().query_value("SELECT system_identifier FROM pg_control_system()");
    let foreign = good.replace(&system_identifier.await?, "7000000000000000001");
    let foreign = foreign.replace("timeline = 1", "timeline = 9");
    std::fs::write(&file, &foreign)?;
    run.restart(Some(&file)).await?;
    write_row(&run.set, 3).await?;
    until_saved(&run.set).await?;
    assert!(report(&run.set).found.is_some_and(|found| found.contains("memory.foreign")));
    assert_eq!(std::fs::read_to_string(run.folder.path().join("memory.foreign"))?, foreign);

    // From a later version: that program needs it again.
    let newer = good.replace("version = 1", "version = 2");
    std::fs::write(&file, &newer)?;
    run.restart(Some(&file)).await?;
    write_row(&run.set, 4).await?;
    until("it is reported", async || report(&run.set).error.is_some()).await?;
    assert_eq!(std::fs::read_to_string(&file)?, newer);

    // Once it can be read, it counts.
    std::fs::write(&file, good.replace("timeline = 1", "timeline = 9"))?;
    until_role(&run.set, cluster.primary().name(), NodeRole::StalePrimary).await?;
    until_saved(&run.set).await?;

    // In a folder that does not exist, until it does.
    let late = run.folder.path().join("late");
    run.restart(Some(&late.join("memory"))).await?;
    write_row(&run.set, 5).await?;
    until("it is reported", async || report(&run.set).error.is_some()).await?;
    std::fs::create_dir(&late)?;
    until_saved(&run.set).await?;
    assert_eq!(report(&run.set).error, None);
    Ok(())
}

/// The file of a set that runs already: what it says counts at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconfiguration_may_name_another_memory_file() -> TestResult {
    let mut run = Run::begin().await?;
    let (file, cluster) = (run.path(), Arc::clone(&run.cluster));
    let (old, new_primary, other) = (cluster.primary(), cluster.replica(0), cluster.replica(1));
    promote(&run.set, new_primary).await?;
    until_file(&file, "timeline = 2").await?;
    new_primary.stop().await?;
    other.stop().await?;

    run.restart(None).await?;
    until_primary(&run.set, old).await?;
    run.set.reconfigure(config_of(cluster.servers()).memory_file(&file).build()?).await?;
    until_role(&run.set, old.name(), NodeRole::StalePrimary).await?;
    until_saved(&run.set).await?;

    let elsewhere = run.folder.path().join("elsewhere");
    run.set.reconfigure(config_of(cluster.servers()).memory_file(&elsewhere).build()?).await?;
    until_file(&elsewhere, "timeline = 2").await?;
    run.set.reconfigure(config_of(cluster.servers()).build()?).await?;
    assert_eq!(run.set.health().memory, None);
    assert_eq!(role(&run.set, old), Some(NodeRole::StalePrimary), "the set still knows");
    Ok(())
}

/// After `forget_history` and after another cluster has taken the place, the file has what counts now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_follows_the_set_to_another_cluster() -> TestResult {
    let run = Run::begin().await?;
    let new = Cluster::builder().start().await?;
    new.primary().execute(CREATE_ACKS).await?;
    let identifier =
        async |server: &Server| server.query_value("SELECT system_identifier FROM pg_control_system()").await;
    until_file(&run.path(), &identifier(run.cluster.primary()).await?).await?;

    let node = NodeConfig::primary(new.primary().url())?.with_name("new");
    run.set.reconfigure(Config::builder().node(node).memory_file(run.path()).build()?).await?;
    until_role(&run.set, "new", NodeRole::Foreign).await?;
    run.set.forget_history().await;
    until_file(&run.path(), &identifier(new.primary()).await?).await?;
    assert!(!run.folder.path().join("memory.foreign").exists(), "an operator decided it");
    Ok(())
}
