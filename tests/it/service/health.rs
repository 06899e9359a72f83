//! `/health` and `/ready` while nodes go and come.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Answer, Rig};

/// Asks until the answer is as expected; a failure shows the last one.
async fn until(rig: &Rig, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = rig.get(path).await;
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{path} stays {}: {:#}", answer.status, answer.body);
        sleep(Duration::from_millis(20)).await;
    }
}

fn summary(answer: &Answer) -> Value {
    let field = |name: &str| answer.body[name].clone();
    json!([answer.status.as_u16(), field("status"), field("db_primary"), field("db_replica")])
}

#[tokio::test]
async fn a_lost_replica_degrades_and_a_lost_primary_is_unhealthy() {
    let rig = Rig::start(1).await;
    let (primary, replica) = (rig.cluster.primary(), rig.cluster.replica(0));
    let well = json!([200, "healthy", "connected", "connected"]);
    let answer = until(&rig, "/health", |answer| summary(answer) == well).await;
    assert_eq!(answer.body["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(answer.body["nodes"].as_array().unwrap().len(), 2);
    assert!(!answer.body.to_string().contains("open-sesame"), "a password is nobody's business");

    replica.kill().await.unwrap();
    let degraded = json!([200, "degraded", "connected", "disconnected"]);
    until(&rig, "/health", |answer| summary(answer) == degraded).await;
    let answer = rig.get("/transactions").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["x-served-by-role"]),
        (200, &"primary".parse().unwrap())
    );
    replica.start().await.unwrap();
    until(&rig, "/health", |answer| summary(answer) == well).await;

    primary.kill().await.unwrap();
    let unhealthy = json!([503, "unhealthy", "disconnected", "connected"]);
    until(&rig, "/health", |answer| summary(answer) == unhealthy).await;
    // It can still read, so it should still be asked.
    let ready = rig.get("/ready").await;
    assert_eq!(
        (ready.status.as_u16(), ready.body),
        (200, json!({ "ready": true, "reads": true, "writes": false }))
    );
    let answer = rig.get("/transactions").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["x-served-by-role"]),
        (200, &"replica".parse().unwrap())
    );
    primary.start().await.unwrap();
    until(&rig, "/health", |answer| summary(answer) == well).await;
}

#[tokio::test]
async fn one_server_alone_is_healthy_and_says_that_there_is_no_replica() {
    let rig = Rig::start(0).await;
    let answer = rig.get("/health").await;
    assert_eq!(summary(&answer), json!([200, "healthy", "connected", null]));
    assert_eq!(answer.body["reads_on_primary_only"], true);

    rig.cluster.primary().kill().await.unwrap();
    let answer = until(&rig, "/ready", |answer| answer.status == 503).await;
    assert_eq!(answer.body, json!({ "ready": false, "reads": false, "writes": false }));
    assert_eq!(rig.get("/live").await.status, 200, "a restart of the program would not help");
}

#[tokio::test]
async fn a_closed_set_is_not_ready_and_serves_nothing() {
    let rig = Rig::start(0).await;
    assert_eq!(rig.get("/ready").await.status, 200);
    rig.set.close().await.unwrap();
    assert_eq!(rig.get("/ready").await.status, 503);
    assert_eq!(rig.get("/health").await.status, 503);
    let answer = rig.get("/transactions").await;
    assert_eq!(answer.code(), (503, "closing"));
    assert_eq!(answer.headers["retry-after"], "1");
}
