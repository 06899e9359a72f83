//! `/health` and `/ready` while nodes go and come.

use serde_json::{Value, json};

use super::{Answer, Fixture};
use pointsman::testkit::wait::until;

/// Asks until the answer is as expected; a failure shows the last one.
async fn until_answer(fixture: &Fixture, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    let mut answer = fixture.get(path).await;
    let waited = until("the service answers as expected", async || {
        answer = fixture.get(path).await;
        wanted(&answer)
    });
    if let Err(error) = waited.await {
        panic!("{error}; {path} stays {}: {:#}", answer.status, answer.body);
    }
    answer
}

fn summary(answer: &Answer) -> Value {
    let field = |name: &str| answer.body[name].clone();
    json!([answer.status.as_u16(), field("status"), field("db_primary"), field("db_replica")])
}

#[tokio::test]
async fn a_lost_replica_degrades_and_a_lost_primary_is_unhealthy() {
    let fixture = Fixture::start(1).await;
    let (primary, replica) = (fixture.cluster.primary(), fixture.cluster.replica(0));
    let well = json!([200, "healthy", "connected", "connected"]);
    let answer = until_answer(&fixture, "/health", |answer| summary(answer) == well).await;
    assert_eq!(answer.body["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(answer.body["nodes"].as_array().unwrap().len(), 2);
    assert!(!answer.body.to_string().contains("open-sesame"), "a password is in no answer");

    replica.kill().await.unwrap();
    let degraded = json!([200, "degraded", "connected", "disconnected"]);
    until_answer(&fixture, "/health", |answer| summary(answer) == degraded).await;
    let answer = fixture.get("/transactions").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["x-served-by-role"]),
        (200, &"primary".parse().unwrap())
    );
    replica.start().await.unwrap();
    until_answer(&fixture, "/health", |answer| summary(answer) == well).await;

    primary.kill().await.unwrap();
    let unhealthy = json!([503, "unhealthy", "disconnected", "connected"]);
    until_answer(&fixture, "/health", |answer| summary(answer) == unhealthy).await;
    // It can still read, so it should still be asked.
    let ready = fixture.get("/ready").await;
    assert_eq!(
        (ready.status.as_u16(), ready.body),
        (200, json!({ "ready": true, "reads": true, "writes": false }))
    );
    let answer = fixture.get("/transactions").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["x-served-by-role"]),
        (200, &"replica".parse().unwrap())
    );
    primary.start().await.unwrap();
    until_answer(&fixture, "/health", |answer| summary(answer) == well).await;
}

#[tokio::test]
async fn one_server_alone_is_healthy_and_says_that_there_is_no_replica() {
    let fixture = Fixture::start(0).await;
    let answer = fixture.get("/health").await;
    assert_eq!(summary(&answer), json!([200, "healthy", "connected", null]));
    assert_eq!(answer.body["reads_on_primary_only"], true);

    fixture.cluster.primary().kill().await.unwrap();
    let answer = until_answer(&fixture, "/ready", |answer| answer.status == 503).await;
    assert_eq!(answer.body, json!({ "ready": false, "reads": false, "writes": false }));
    assert_eq!(fixture.get("/live").await.status, 200, "a restart of the program would not help");
}

#[tokio::test]
async fn a_closed_set_is_not_ready_and_serves_nothing() {
    let fixture = Fixture::start(0).await;
    assert_eq!(fixture.get("/ready").await.status, 200);
    fixture.set.close().await.unwrap();
    assert_eq!(fixture.get("/ready").await.status, 503);
    assert_eq!(fixture.get("/health").await.status, 503);
    let answer = fixture.get("/transactions").await;
    assert_eq!(answer.code(), (503, "closing"));
    assert_eq!(answer.headers["retry-after"], "1");
}
