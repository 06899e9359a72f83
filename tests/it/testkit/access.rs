//! Slots are used up, and passwords are wrong.

use super::{ask, code, connect};
use crate::support::start_cluster;
use pointsman::testkit::Cluster;
use pointsman::testkit::wait::until;
use tokio_postgres::error::SqlState;

#[tokio::test]
async fn a_server_without_free_slots_refuses_until_they_are_free() {
    let cluster = Cluster::builder().setting("max_connections", "10").start().await.unwrap();
    let server = cluster.primary();
    let early = connect(&server.url()).await.unwrap();

    let exhausted = server.exhaust_connections().await.unwrap();
    // Ten, of which three are the superuser's and one was taken before.
    assert_eq!(exhausted.count(), 6);
    let refused = connect(&server.url()).await.unwrap_err();
    assert_eq!(code(&refused), Some(&SqlState::TOO_MANY_CONNECTIONS));
    assert_eq!(ask(&early, "SELECT 'still here'").await.unwrap(), "still here");
    assert_eq!(server.query_value("SELECT 1").await.unwrap(), "1");

    drop(exhausted);
    until("a slot is free", async || connect(&server.url()).await.is_ok()).await.unwrap();
}

#[tokio::test]
async fn a_changed_password_counts_for_the_next_connection_everywhere() {
    let cluster = start_cluster(1).await;
    let (before, client) = (cluster.urls(), connect(&cluster.primary().url()).await.unwrap());
    cluster.primary().change_password("it's a/new one").await.unwrap();
    cluster.wait_caught_up().await.unwrap();

    for (server, before) in cluster.servers().iter().zip(before) {
        let refused = connect(&before).await.unwrap_err();
        assert_eq!(code(&refused), Some(&SqlState::INVALID_PASSWORD));
        connect(&server.url()).await.unwrap();
    }
    assert_eq!(ask(&client, "SELECT 'still here'").await.unwrap(), "still here");
    cluster.replica(0).change_password("no").await.unwrap_err();
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_no_password_is_printed() {
    let cluster = start_cluster(0).await;
    let server = cluster.primary();
    let refused = connect(&server.wrong_password_url()).await.unwrap_err();
    assert_eq!(code(&refused), Some(&SqlState::INVALID_PASSWORD));

    let admin = server.admin_url();
    let secret = admin.split(['@', ':']).nth(2).unwrap();
    assert!(secret.len() >= 32, "a short password for a superuser");
    let shown = format!("{cluster:?} {server:?} {}", server.log());
    assert!(!shown.contains(secret) && !shown.contains("sesame"), "{shown}");
}
