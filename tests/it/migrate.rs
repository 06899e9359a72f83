//! Migrations: from inside the program, and with Diesel's own tool.

mod command_line;

use std::time::Duration;

use diesel::migration::MigrationSource;
use diesel::pg::Pg;
use diesel_migrations::FileBasedMigrations;
use pointsman::migrate::{self, MigrateError};
use pointsman::payments::MIGRATIONS;
use pointsman::prelude::*;
use pointsman::testkit::{self, Cluster};
use tokio::task::JoinSet;

use crate::support::{connect, fixture, set_of, start_cluster};

const NAMES: [&str; 2] = ["2025-01-01-000000_payments", "2026-11-28-000000_account_balances"];

/// A folder with migrations; each is a name and its statements.
fn migrations(of: &[(&str, &str)]) -> (tempfile::TempDir, FileBasedMigrations) {
    let folder = tempfile::tempdir().expect("a folder of migrations");
    for (name, sql) in of {
        let migration = folder.path().join(name);
        std::fs::create_dir(&migration).expect("a folder of migrations");
        std::fs::write(migration.join("up.sql"), sql).expect("a folder of migrations");
        std::fs::write(migration.join("down.sql"), "SELECT 1").expect("a folder of migrations");
    }
    let source = FileBasedMigrations::from_path(folder.path()).expect("a folder of migrations");
    (folder, source)
}

#[tokio::test]
async fn pending_migrations_are_applied_once() {
    let (cluster, set) = fixture(1).await;
    let conn = set.write().await.unwrap();
    assert_eq!(migrate::pending(&conn, MIGRATIONS).await.unwrap(), NAMES);
    assert_eq!(migrate::run(conn, MIGRATIONS).await.unwrap(), NAMES);
    assert_eq!(migrate::run(set.write().await.unwrap(), MIGRATIONS).await.unwrap(), [""; 0]);
    // It can be asked on a replica, too.
    cluster.wait_caught_up().await.unwrap();
    let conn = set.read().await.unwrap();
    assert_eq!(migrate::pending(&conn, MIGRATIONS).await.unwrap(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_run_on_a_multi_threaded_runtime() {
    let (_cluster, set) = fixture(0).await;
    let conn = set.write().await.unwrap();
    let applied = tokio::spawn(migrate::run(conn, MIGRATIONS)).await.unwrap().unwrap();
    assert_eq!(applied, NAMES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_programs_that_start_together_one_migrates() {
    let (_cluster, set) = fixture(0).await;
    let mut tasks = JoinSet::new();
    for _ in 0..6 {
        let set = set.clone();
        // Each of them would fail where another one has made the table before.
        tasks.spawn(async move {
            let (_folder, source) = migrations(&[
                ("2025-01-01-000000_one", "SELECT pg_sleep(0.3); CREATE TABLE one (id int)"),
                ("2025-01-02-000000_two", "CREATE TABLE two (id int)"),
            ]);
            migrate::run(set.write().await.unwrap(), source).await.expect("no error for the others")
        });
    }
    let applied: Vec<_> = tasks.join_all().await.into_iter().filter(|applied| !applied.is_empty()).collect();
    assert_eq!(applied, [["2025-01-01-000000_one", "2025-01-02-000000_two"]]);
}

#[tokio::test]
async fn the_wait_for_the_migration_lock_is_bounded() {
    let (_cluster, set) = fixture(0).await;
    let other = set.write().await.unwrap();
    let lock = "SELECT pg_advisory_lock(x'706f696e74736d6e'::bigint)";
    diesel::sql_query(lock).execute(&other).await.unwrap();
    let wait = Duration::from_millis(300);
    let started = tokio::time::Instant::now();
    let error = migrate::run_within(set.write().await.unwrap(), MIGRATIONS, wait).await.unwrap_err();
    assert!(matches!(error, MigrateError::Locked { waited, .. } if waited == wait), "{error:?}");
    assert!(started.elapsed() >= wait);
    let unlock = "SELECT pg_advisory_unlock_all()";
    diesel::sql_query(unlock).execute(&other).await.unwrap();
    assert_eq!(migrate::run(set.write().await.unwrap(), MIGRATIONS).await.unwrap(), NAMES);
}

#[tokio::test]
async fn a_dropped_wait_for_the_migration_lock_leaves_no_lock() {
    let (cluster, set) = fixture(0).await;
    for i in 0..30 {
        let conn = set.write().await.unwrap();
        let (_folder, nothing) = migrations(&[]);
        let _ = tokio::time::timeout(Duration::from_micros(i * 100), migrate::run(conn, nothing)).await;
    }
    // Each of their connections ends, and its lock with it.
    migrate::run(set.write().await.unwrap(), MIGRATIONS).await.expect("the lock is free soon");
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while cluster.primary().query_value(locks).await.unwrap() != "0" {
        assert!(tokio::time::Instant::now() < deadline, "a lock stays");
    }
}

#[tokio::test]
async fn a_migration_that_fails_is_undone_and_named() {
    let (cluster, set) = fixture(0).await;
    let (_folder, source) = migrations(&[
        ("2025-01-01-000000_good", "CREATE TABLE good (id int)"),
        ("2025-01-02-000000_bad", "CREATE TABLE bad (id int); SELECT 1 / 0"),
        ("2025-01-03-000000_never", "CREATE TABLE never (id int)"),
    ]);
    let error = migrate::run(set.write().await.unwrap(), source).await.unwrap_err();
    let MigrateError::Migration { name, applied, source } = error else { panic!("{error:?}") };
    assert_eq!(
        (name.as_str(), applied),
        ("2025-01-02-000000_bad", vec!["2025-01-01-000000_good".to_owned()])
    );
    assert!(source.to_string().contains("division by zero"), "{source}");
    let tables = "SELECT string_agg(tablename, ',') FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE '\\_\\_%'";
    assert_eq!(cluster.primary().query_value(tables).await.unwrap(), "good");

    let (_folder, corrected) = migrations(&[
        ("2025-01-01-000000_good", "CREATE TABLE good (id int)"),
        ("2025-01-02-000000_bad", "CREATE TABLE bad (id int)"),
    ]);
    assert_eq!(migrate::run(set.write().await.unwrap(), corrected).await.unwrap(), ["2025-01-02-000000_bad"]);
}

#[tokio::test]
async fn a_migration_may_take_longer_than_a_statement() -> testkit::Result<()> {
    let cluster = Cluster::builder().setting("statement_timeout", "200ms").start().await?;
    let set = connect(&cluster).await;
    let (_folder, source) = migrations(&[("2025-01-01-000000_slow", "SELECT pg_sleep(0.5)")]);
    assert_eq!(migrate::run(set.write().await.unwrap(), source).await.unwrap(), ["2025-01-01-000000_slow"]);
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_read_only_is_refused() -> testkit::Result<()> {
    let cluster = Cluster::builder().setting("default_transaction_read_only", "on").start().await?;
    let set = connect(&cluster).await;
    let error = migrate::run(set.write().await.unwrap(), MIGRATIONS).await.unwrap_err();
    assert!(matches!(error, MigrateError::ReadOnly { .. }), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_standby_gets_no_migration() {
    let cluster = start_cluster(1).await;
    // Only the standby is known, so a caller that asks for the primary gets none, and nothing can be migrated.
    let set = set_of(cluster.replicas()).await;
    set.write().await.expect_err("no primary");
    let names: Vec<_> = MigrationSource::<Pg>::migrations(&MIGRATIONS).unwrap();
    assert_eq!(names.len(), NAMES.len());
}
