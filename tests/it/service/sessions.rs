//! Requests that see what the requests before them wrote, by the token in a header.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::routing::get;
use axum::{Extension, Router};
use pointsman::payments::MIGRATIONS;
use pointsman::payments::http::Service;
use pointsman::prelude::*;
use pointsman::testkit::wait::until;
use pointsman::tower::{CausalLayer, OnInvalidToken};
use pointsman::{CausalToken, Lsn, ReplicaSet, Session, TokenKey, migrate};
use serde_json::json;
use tower::ServiceExt;

use super::{Answer, Fixture};
use crate::support::{builder_of, start, start_cluster};

const HEADER: &str = "x-causal-token";

impl Fixture {
    async fn get_with(&self, path: &str, token: &str) -> Answer {
        self.send(Request::get(path).header(HEADER, token).body(Body::empty()).unwrap()).await
    }

    /// Records a transaction, and returns its path and the token of the answer.
    async fn record(&self, provider_id: &str) -> (String, String) {
        let new = json!({
            "provider": "acme", "provider_id": provider_id, "account": "576", "kind": "deposit", "amount": "1",
            "asset": "CZK"
        });
        let answer = self.post("/transactions", &new.to_string()).await;
        assert_eq!(answer.status, 201, "{:#}", answer.body);
        let header = |name: &str| answer.headers[name].to_str().unwrap().to_owned();
        (header("location"), header(HEADER))
    }

    fn reads_of_primary(&self) -> u64 {
        self.set.health().nodes[0].reads
    }
}

/// The same token with another position, timeline or cluster.
fn made_up(token: &str) -> [CausalToken; 3] {
    let token: CausalToken = token.parse().unwrap();
    let (cluster, timeline, position) = (token.system_identifier(), token.timeline(), token.position());
    [
        CausalToken::new(cluster, timeline, Lsn::new(position.as_u64() + (1 << 40))),
        CausalToken::new(cluster, timeline + 7, position),
        CausalToken::new(cluster + 1, timeline, position),
    ]
}

/// A client that followed the `Location` of a 201 got 404 from a replica that was a moment behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_location_of_a_201_is_found_with_its_token() {
    let fixture = Fixture::start(2).await;
    let replicas: Vec<_> = fixture.cluster.replicas().iter().collect();

    // Replay stands still: without the token no replica lists the transaction, with it the primary finds it.
    for replica in &replicas {
        replica.pause_replay().await.unwrap();
    }
    let (place, token) = fixture.record("paused").await;
    let listed = fixture.get("/transactions").await;
    assert_eq!((listed.status.as_u16(), &listed.body["items"]), (200, &serde_json::json!([])));
    let found = fixture.get_with(&place, &token).await;
    assert_eq!(
        (found.status.as_u16(), &found.headers["x-served-by-role"]),
        (200, &"primary".parse().unwrap())
    );

    // Replay goes on a little late: each one is found, on whichever node.
    for replica in &replicas {
        replica.resume_replay().await.unwrap();
        replica.set_replay_delay(Duration::from_millis(150)).await.unwrap();
    }
    for i in 0..20 {
        let (place, token) = fixture.record(&format!("late-{i}")).await;
        assert_eq!(fixture.get_with(&place, &token).await.status, 200, "{place}");
    }

    // Without a delay, the replicas serve those reads.
    for replica in &replicas {
        replica.set_replay_delay(Duration::ZERO).await.unwrap();
    }
    let (place, token) = fixture.record("soon").await;
    until("a replica serves the session", async || {
        let found = fixture.get_with(&place, &token).await;
        assert_eq!(found.status, 200);
        found.headers["x-served-by-role"] == "replica"
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_token_is_answered_with_400_and_costs_the_primary_no_read() {
    let fixture = Fixture::start(1).await;
    let (place, token) = fixture.record("one").await;
    fixture.cluster.wait_caught_up().await.unwrap();
    let before = fixture.reads_of_primary();

    let changed = token.replacen('A', "B", 3);
    let signed = TokenKey::new("a key that is not set here").unwrap().sign(&token.parse().unwrap());
    for text in ["hello", &changed, &signed, &"A".repeat(8000)] {
        let refused = fixture.get_with(&place, text).await;
        assert_eq!(refused.code(), (400, "invalid_token"), "{text}: {:#}", refused.body);
        assert!(refused.headers.contains_key("x-request-id"));
    }
    let made_up = made_up(&token).map(|token| token.to_string());
    for text in &made_up {
        let refused = fixture.get_with(&place, text).await;
        assert_eq!(refused.code(), (400, "invalid_token"), "{text}: {:#}", refused.body);
    }
    // A flood of them.
    let flood = (0..200).map(|i| fixture.get_with(&place, &made_up[i % 3]));
    for refused in futures_util::future::join_all(flood).await {
        assert_eq!(refused.code(), (400, "invalid_token"));
    }
    assert_eq!(fixture.reads_of_primary(), before, "the primary served none of them");
    // A position just beyond what was written is refused as well.
    let genuine: CausalToken = token.parse().unwrap();
    let near = Lsn::new(genuine.position().as_u64() + (1 << 26));
    let near = CausalToken::new(genuine.system_identifier(), genuine.timeline(), near).to_string();
    assert_eq!(fixture.get_with(&place, &near).await.code(), (400, "invalid_token"));
    assert_eq!(fixture.reads_of_primary(), before, "the primary did not serve it either");

    // The state of the service needs no token, so a wrong one is no error there.
    assert_eq!(fixture.get_with("/live", "hello").await.status, 200);
    assert_eq!(fixture.get_with(&place, &token).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_ignores_invalid_tokens_runs_the_request_in_a_new_session() {
    let fixture = Fixture::start(1).await;
    let (_, token) = fixture.record("one").await;
    fixture.cluster.wait_caught_up().await.unwrap();
    let before = fixture.reads_of_primary();
    let layer = CausalLayer::new(fixture.set.clone()).on_invalid(OnInvalidToken::Ignore);
    let router: Router = Router::new().route("/", get(read)).layer(layer);
    let invalid = made_up(&token).map(|token| token.to_string()).into_iter().chain(["hello".to_owned()]);
    for text in invalid {
        let request = Request::get("/").header(HEADER, &text).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200, "{text}");
        let seen: CausalToken = response.headers()[HEADER].to_str().unwrap().parse().unwrap();
        assert_eq!(seen.system_identifier(), token.parse::<CausalToken>().unwrap().system_identifier());
        assert_ne!(seen.to_string(), text);
    }
    assert_eq!(fixture.reads_of_primary(), before, "a replica served all of them");
}

async fn read(Extension(session): Extension<Session>) -> Result<(), String> {
    let read = session.run_read(async |conn| {
        diesel::select(diesel::dsl::sql::<diesel::sql_types::Integer>("1")).get_result::<i32>(conn).await?;
        Ok::<_, pointsman::Error>(())
    });
    read.await.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_key_in_the_configuration_the_service_takes_its_own_tokens_only() {
    let key = TokenKey::new("a key of more than sixteen bytes").unwrap();
    let cluster = start_cluster(1).await;
    let set: ReplicaSet = start(builder_of(cluster.servers()).token_key(key.clone())).await;
    migrate::run(set.write().await.unwrap(), MIGRATIONS).await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    let router = Service::new(set.clone()).router();
    let fixture = Fixture { cluster, set, router };

    let (place, signed) = fixture.record("one").await;
    let token = key.verify(&signed).unwrap();
    assert_eq!(fixture.get_with(&place, &signed).await.status, 200);
    let other = TokenKey::new("another key of that length").unwrap();
    for forged in [token.to_string(), other.sign(&token)] {
        assert_eq!(fixture.get_with(&place, &forged).await.code(), (400, "invalid_token"));
    }
    let health = fixture.get("/health").await.body.to_string();
    for shown in [health, format!("{:?} {}", fixture.set.config(), fixture.set.config())] {
        assert!(!shown.contains("sixteen"), "{shown}");
    }

    // A reload with another key: tokens of the old one are no longer accepted.
    let reloaded = builder_of(fixture.cluster.servers()).token_key(other).build().unwrap();
    let _ = fixture.set.reconfigure(reloaded).await.unwrap();
    assert_eq!(fixture.get_with(&place, &signed).await.code(), (400, "invalid_token"));
}
