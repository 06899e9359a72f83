//! A set whose work is rolled back behaves as any other, and leaves nothing behind.

mod endings;
mod transactions;

use std::time::Duration;

use diesel::result::{DatabaseErrorKind, Error};
use diesel_async::SimpleAsyncConnection;
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use pointsman::config::{NodeConfig, TimeoutSettings};
use pointsman::payments::MIGRATIONS;
use pointsman::prelude::*;
use pointsman::testkit::{Cluster, RollbackSet, TestkitError};
use pointsman::{CheckoutError, Config, ReplicaSet, migrate};

use crate::support::{config_of, pools_of, smuggle, start_cluster, value};

diesel::table! {
    notes (id) {
        id -> Integer,
        text -> Text,
    }
}

static_assertions::assert_impl_all!(RollbackSet: Send, Sync);

async fn cluster() -> Cluster {
    let cluster = start_cluster(0).await;
    cluster.primary().execute("CREATE TABLE notes (id int PRIMARY KEY, text text)").await.unwrap();
    cluster
}

async fn fixture() -> (Cluster, RollbackSet) {
    let cluster = cluster().await;
    let set = RollbackSet::connect(config_of(cluster.servers())).await.unwrap();
    (cluster, set)
}

async fn add(conn: &Conn<Write>, id: i32) -> QueryResult<usize> {
    diesel::insert_into(notes::table).values((notes::id.eq(id), notes::text.eq("x"))).execute(conn).await
}

/// The notes that a new checkout to read finds.
async fn seen(set: &ReplicaSet) -> Vec<i32> {
    let conn = set.read().await.unwrap();
    notes::table.select(notes::id).order(notes::id).load(&conn).await.unwrap()
}

/// The notes that any other session finds.
async fn committed(cluster: &Cluster) -> String {
    let sql = "SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM notes";
    cluster.primary().query_value(sql).await.unwrap()
}

fn is_unique_violation<T>(outcome: &QueryResult<T>) -> bool {
    matches!(outcome, Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)))
}

#[tokio::test]
async fn both_intents_see_what_was_written_and_no_other_session_ever_does() {
    let (cluster, set) = fixture().await;
    add(&set.write().await.unwrap(), 1).await.unwrap();
    assert_eq!(seen(&set).await, [1]);
    set.run_write(async |tx| -> Result<_, pointsman::Error> { Ok(add(tx, 2).await?) }).await.unwrap();
    let count: i64 = set
        .run_read(async |conn| -> Result<_, pointsman::Error> {
            Ok(notes::table.count().get_result(conn).await?)
        })
        .await
        .unwrap();
    assert_eq!(count, 2);
    assert_eq!(committed(&cluster).await, "");
    assert!(set.health().nodes.iter().all(|node| node.connections > 0), "{:?}", set.health());
    drop(set);
    // No lock is left either: this would wait for one.
    cluster.primary().execute("SET lock_timeout = '1s'; DROP TABLE notes").await.unwrap();
}

#[tokio::test]
async fn connections_without_a_transaction_are_used_side_by_side() {
    let (_cluster, set) = fixture().await;
    let (reader, writer, other) =
        (set.read().await.unwrap(), set.write().await.unwrap(), set.write().await.unwrap());
    add(&writer, 1).await.unwrap();
    add(&other, 2).await.unwrap();
    // Half of a result is not read until the end.
    let mut half =
        Box::pin(notes::table.select(notes::id).order(notes::id).load_stream::<i32>(&reader).await.unwrap());
    assert_eq!(half.try_next().await.unwrap(), Some(1));
    add(&writer, 3).await.unwrap();
    assert_eq!(half.try_next().await.unwrap(), Some(2));
    drop(half);
    assert_eq!(seen(&set).await, [1, 2, 3]);
}

#[tokio::test]
async fn a_failed_statement_does_no_harm_to_later_ones() {
    let (cluster, set) = fixture().await;
    let conn = set.write().await.unwrap();
    add(&conn, 1).await.unwrap();
    assert!(is_unique_violation(&add(&conn, 1).await));
    add(&conn, 2).await.unwrap();
    assert!(smuggle(&conn, "SELECT nonsense").await.is_err(), "it fails as it is prepared");
    let mut conn = conn;
    conn.batch_execute("INSERT INTO notes VALUES (3, 'x'); INSERT INTO notes VALUES (1, 'x')")
        .await
        .unwrap_err();
    add(&conn, 4).await.unwrap();
    assert_eq!(seen(&set).await, [1, 2, 4], "several statements of one request are all or nothing");
    assert_eq!(committed(&cluster).await, "");
}

#[tokio::test]
async fn the_server_refuses_writes_of_a_reader_and_not_of_the_writer_after_it() {
    let (_cluster, set) = fixture().await;
    let (reader, writer) = (set.read().await.unwrap(), set.write().await.unwrap());
    for id in 1..3 {
        smuggle(&reader, "INSERT INTO notes VALUES (9, 'x')").await.unwrap_err();
        assert_eq!(reader.last_sqlstate().unwrap().to_string(), "25006");
        add(&writer, id).await.unwrap();
    }
    assert_eq!(
        value(&reader, "SELECT current_setting('default_transaction_read_only')").await.unwrap(),
        "on"
    );
    assert_eq!(
        value(&writer, "SELECT current_setting('default_transaction_read_only')").await.unwrap(),
        "off"
    );
    assert_eq!(seen(&set).await, [1, 2]);
    // Nor does a turn that was rolled back leave the settings of the one before.
    assert!(is_unique_violation(&add(&writer, 2).await));
    assert_eq!(
        value(&writer, "SELECT current_setting('default_transaction_read_only')").await.unwrap(),
        "off"
    );
    assert_eq!(value(&writer, "SELECT current_setting('pointsman.session')").await.unwrap(), "write");
}

#[tokio::test]
async fn transactions_of_many_tasks_take_turns() {
    let (cluster, set) = fixture().await;
    add(&set.write().await.unwrap(), 0).await.unwrap();
    let tasks = (0..20).map(|_| {
        let set = ReplicaSet::clone(&set);
        tokio::spawn(async move {
            set.run_write(async |tx| -> Result<(), pointsman::Error> {
                let largest: Option<i32> =
                    notes::table.select(diesel::dsl::max(notes::id)).get_result(tx.as_read()).await?;
                add(tx, largest.unwrap_or_default() + 1).await?;
                Ok(())
            })
            .await
        })
    });
    for outcome in join_all(tasks).await {
        outcome.unwrap().unwrap();
    }
    assert_eq!(seen(&set).await, (0..=20).collect::<Vec<_>>());
    assert_eq!(committed(&cluster).await, "");
}

#[tokio::test]
async fn sets_side_by_side_see_nothing_of_each_other() {
    let cluster = cluster().await;
    let tests = (0..5).map(|test| {
        let config = config_of(cluster.servers());
        async move {
            let set = RollbackSet::connect(config).await.unwrap();
            for id in 0..10 {
                add(&set.write().await.unwrap(), 10 * test + id).await.unwrap();
            }
            assert_eq!(seen(&set).await, (10 * test..10 * test + 10).collect::<Vec<_>>());
        }
    });
    join_all(tests).await;
    assert_eq!(committed(&cluster).await, "");
}

#[tokio::test]
async fn migrations_are_rolled_back_as_well() {
    let (cluster, set) = fixture().await;
    let applied = migrate::run(set.write().await.unwrap(), MIGRATIONS).await.unwrap();
    assert!(!applied.is_empty());
    assert_eq!(value(&set.read().await.unwrap(), "SELECT count(*) FROM transactions").await.unwrap(), "0");
    drop(set);
    let tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'transactions'";
    assert_eq!(cluster.primary().query_value(tables).await.unwrap(), "0");
}

#[tokio::test]
async fn the_settings_of_each_intent_count_and_what_a_user_sets_does_not_stay() {
    let cluster = cluster().await;
    let url = format!("{}?options=-c%20work_mem%3D5MB", cluster.primary().url());
    let timeouts =
        TimeoutSettings { read_statement: Some(Duration::from_millis(300)), ..TimeoutSettings::default() };
    let config = Config::builder().primary(url).timeouts(timeouts).pool(pools_of(1)).build().unwrap();
    let set = RollbackSet::connect(config).await.unwrap();
    let setting = |name: &str| format!("SELECT current_setting('{name}')");
    for _ in 0..2 {
        let (reader, writer) = (set.read().await.unwrap(), set.write().await.unwrap());
        assert_eq!(value(&reader, &setting("statement_timeout")).await.unwrap(), "300ms");
        assert_eq!(value(&writer, &setting("statement_timeout")).await.unwrap(), "0");
        smuggle(&reader, "SELECT pg_sleep(60)").await.unwrap_err();
        assert_eq!(reader.last_sqlstate().unwrap().to_string(), "57014");
        smuggle(&writer, "SELECT pg_sleep(0.5)").await.unwrap();
        assert_eq!(value(&writer, &setting("work_mem")).await.unwrap(), "5MB");
        assert_eq!(value(&writer, &setting("lock_timeout")).await.unwrap(), "0");
        smuggle(&writer, "SET lock_timeout = '9s'").await.unwrap();
        assert_eq!(value(&writer, &setting("lock_timeout")).await.unwrap(), "9s");
    }
}

#[tokio::test]
async fn a_clone_of_the_set_ends_with_it() {
    let (cluster, set) = fixture().await;
    let clone = ReplicaSet::clone(&set);
    let conn = clone.write().await.unwrap();
    add(&conn, 1).await.unwrap();
    drop(set);
    add(&conn, 2).await.unwrap_err();
    drop(conn);
    assert!(matches!(clone.write().await, Err(CheckoutError::Closed)));
    assert!(matches!(clone.read().await, Err(CheckoutError::Closed)));
    assert_eq!(committed(&cluster).await, "");
}

#[tokio::test]
async fn the_primary_of_several_nodes_serves() {
    let cluster = start_cluster(1).await;
    let standby = NodeConfig::primary(cluster.replica(0).url()).unwrap().with_name("standby");
    let primary = NodeConfig::replica(cluster.primary().url()).unwrap().with_name("first");
    let config = Config::builder().node(standby).node(primary).build().unwrap();
    let set = RollbackSet::connect(config).await.unwrap();
    assert_eq!(set.read().await.unwrap().node(), "first");
    assert_eq!(set.write().await.unwrap().node(), "first");
    assert_eq!(set.health().nodes.len(), 1);
}

#[tokio::test]
async fn a_set_that_cannot_be_made_says_why() {
    let cluster = cluster().await;
    let url = |text: &str| Config::builder().primary(text).build().unwrap();
    let refused = RollbackSet::connect(url(&cluster.primary().wrong_password_url())).await;
    assert!(matches!(refused, Err(TestkitError::Sql { .. })), "{refused:?}");
    let tls = RollbackSet::connect(url(&format!("{}?sslmode=require", cluster.primary().url()))).await;
    assert!(
        matches!(&tls, Err(error @ TestkitError::State { .. }) if error.to_string().contains("sslmode=disable")),
        "{tls:?}"
    );
}
