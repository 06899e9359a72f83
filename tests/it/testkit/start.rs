//! A cluster comes up as it was described.

use super::connect;
use crate::support::start_cluster;
use pointsman::testkit::wait::until;
use pointsman::testkit::{Cluster, Server, TestkitError};
use std::time::Duration;
use tokio::time::{Instant, timeout};

static_assertions::assert_impl_all!(Cluster: Send, Sync);
static_assertions::assert_impl_all!(Server: Send, Sync, Clone);

#[tokio::test]
async fn a_primary_streams_to_its_replicas_within_seconds() {
    // The first start on a machine also makes the template.
    drop(start_cluster(0).await);
    let begin = Instant::now();
    let cluster = start_cluster(2).await;
    let took = begin.elapsed();
    // A second on an idle machine; this limit allows for all other tests at the same time.
    assert!(took < Duration::from_secs(10), "{took:?}");

    assert!(!cluster.primary().is_in_recovery().await.unwrap());
    for replica in cluster.replicas() {
        assert!(replica.is_in_recovery().await.unwrap());
    }
    let standbys = "SELECT string_agg(application_name, ' ' ORDER BY application_name) FROM pg_stat_replication \
        WHERE state = 'streaming'";
    assert_eq!(cluster.primary().query_value(standbys).await.unwrap(), "replica-1 replica-2");
    assert_eq!(cluster.primary().query_value("SHOW cluster_name").await.unwrap(), "primary");
    assert!(cluster.primary().log().contains("ready to accept connections"));
}

#[tokio::test]
async fn the_program_under_test_is_an_ordinary_user_with_a_password() {
    let cluster = start_cluster(1).await;
    let app = connect(&cluster.primary().url()).await.unwrap();
    let row = app.query_one("SELECT current_user::text, current_setting('is_superuser')", &[]).await.unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("app", "off"));

    // It makes tables, and may use those of the administrator.
    app.batch_execute("CREATE TABLE own (number int)").await.unwrap();
    cluster.primary().execute("CREATE TABLE given (id bigserial, number int)").await.unwrap();
    app.batch_execute("INSERT INTO given (number) VALUES (12)").await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    let there = connect(&cluster.replica(0).url()).await.unwrap();
    assert_eq!(there.query_one("SELECT number FROM given", &[]).await.unwrap().get::<_, i32>(0), 12);

    let methods = "SELECT string_agg(DISTINCT auth_method, ' ' ORDER BY auth_method) FROM pg_hba_file_rules";
    assert_eq!(cluster.primary().query_value(methods).await.unwrap(), "password scram-sha-256");
    connect(&cluster.primary().admin_url()).await.unwrap();
}

#[tokio::test]
async fn settings_reach_the_servers_they_are_for() {
    let cluster = Cluster::builder()
        .replicas(1)
        .database("pay-ments")
        .setting("max_connections", "20")
        .setting("work_mem", "5MB")
        .replica_setting("work_mem", "6MB")
        .proxied()
        .start()
        .await
        .unwrap();
    let (primary, replica) = (cluster.primary(), cluster.replica(0));
    assert_eq!(replica.query_value("SHOW max_connections").await.unwrap(), "20");
    assert_eq!(primary.query_value("SHOW work_mem").await.unwrap(), "5MB");
    assert_eq!(replica.query_value("SHOW work_mem").await.unwrap(), "6MB");
    let client = connect(&replica.url()).await.unwrap();
    assert_eq!(super::ask(&client, "SELECT current_database()::text").await.unwrap(), "pay-ments");
    assert_eq!(replica.proxy().await.unwrap().accepted(), 0);
}

#[tokio::test]
async fn a_setting_that_no_server_knows_is_named() {
    let refused = Cluster::builder().setting("work_memory", "5MB").start().await;
    let Err(TestkitError::NotStarted { log, .. }) = refused else { panic!("{refused:?}") };
    assert!(log.contains("work_memory"), "{log}");
}

#[tokio::test]
async fn missing_programs_are_an_error_with_the_packages_to_install() {
    let missing = Cluster::builder().programs("/nowhere").start().await.unwrap_err().to_string();
    for help in ["/nowhere", "apt-get install", "dnf install", "brew install", "PG_BIN"] {
        assert!(missing.contains(help), "{missing}");
    }
}

#[tokio::test]
async fn clusters_at_the_same_time_have_different_identifiers() {
    let start = || Cluster::builder().replicas(1).start();
    let (a, b, c) = tokio::try_join!(start(), start(), start()).unwrap();
    let mut seen = std::collections::HashSet::new();
    for cluster in [&a, &b, &c] {
        let identifier = async |server: &Server| {
            server.query_value("SELECT system_identifier FROM pg_control_system()").await.unwrap()
        };
        let own = identifier(cluster.primary()).await;
        assert_eq!(own, identifier(cluster.replica(0)).await);
        assert!(seen.insert(own), "the same identifier twice");
        for server in cluster.servers() {
            assert!(seen.insert(server.port().to_string()), "the same port twice");
        }
    }
}

#[tokio::test]
async fn a_synchronous_commit_waits_for_a_replica_and_outlives_its_primary() {
    let cluster = Cluster::builder().replicas(2).synchronous().start().await.unwrap();
    let primary = cluster.primary();
    let state = "SELECT string_agg(sync_state, ' ' ORDER BY application_name) FROM pg_stat_replication";
    until("the first replica is the synchronous one", async || {
        primary.query_value(state).await.unwrap() == "sync potential"
    })
    .await
    .unwrap();
    primary.execute("CREATE TABLE train (number int)").await.unwrap();

    cluster.replica(0).pause().await.unwrap();
    cluster.replica(1).pause().await.unwrap();
    let commit = primary.execute("INSERT INTO train VALUES (1)");
    assert!(timeout(super::SILENCE, commit).await.is_err(), "a commit that no replica has");
    cluster.replica(0).resume().await.unwrap();
    cluster.replica(1).resume().await.unwrap();
    primary.execute("INSERT INTO train VALUES (2)").await.unwrap();

    primary.kill().await.unwrap();
    cluster.replica(0).promote().await.unwrap();
    let survived =
        cluster.replica(0).query_value("SELECT count(*) FROM train WHERE number = 2").await.unwrap();
    assert_eq!(survived, "1");
    cluster.replica(0).execute("INSERT INTO train VALUES (3)").await.unwrap();
}

#[test]
fn a_cluster_serves_tests_with_a_runtime_each() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cluster = runtime().block_on(async {
        let cluster = start_cluster(1).await;
        cluster.primary().proxy().await.unwrap();
        cluster
    });
    runtime().block_on(async {
        assert_eq!(cluster.primary().query_value("SELECT 1").await.unwrap(), "1");
        connect(&cluster.primary().proxied_url().await.unwrap()).await.unwrap();
        cluster.replica(0).restart().await.unwrap();
    });
}
