//! The service, through its router and over TCP, on real clusters.

mod api;
mod connections;
mod docs;
mod health;
mod sessions;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use pointsman::payments::MIGRATIONS;
use pointsman::payments::http::Service;
use pointsman::testkit::Cluster;
use pointsman::{ReplicaSet, migrate};
use serde_json::Value;
use tower::ServiceExt;

use crate::support::fixture;

/// A service on a separate cluster.
pub(crate) struct Fixture {
    pub(crate) cluster: Cluster,
    pub(crate) set: ReplicaSet,
    pub(crate) router: Router,
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn code(&self) -> (u16, &str) {
        (self.status.as_u16(), self.body["error"]["code"].as_str().unwrap_or_default())
    }
}

impl Fixture {
    pub(crate) async fn start(replicas: usize) -> Self {
        let (cluster, set) = fixture(replicas).await;
        migrate::run(set.write().await.unwrap(), MIGRATIONS).await.unwrap();
        cluster.wait_caught_up().await.unwrap();
        let router = Service::new(set.clone()).router();
        Self { cluster, set, router }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        Answer { status, headers, body: serde_json::from_slice(&bytes).unwrap_or_default() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        let request = Request::post(path).header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    pub(crate) async fn rows(&self, table: &str) -> String {
        self.cluster.primary().query_value(&format!("SELECT count(*) FROM {table}")).await.unwrap()
    }
}
