//! Liveness, readiness, and the state of the nodes.
//!
//! Three questions, because three reactions follow. A program that does not live is restarted, one that is not ready
//! gets no traffic, and one that is unhealthy alerts an operator.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use std::sync::atomic::Ordering;

use super::Service;
use crate::ReplicaSet;
use crate::replica_set::{HealthReport, MemoryReport, NodeReport, Status};
use crate::topology::{self, NodeRole, PrimaryStatus};

/// The document of `/health`.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// The overall state.
    ///
    /// It is `unhealthy` without a primary, `degraded` without a replica, `stale` if monitoring has ended.
    pub status: Status,
    /// The version of this program.
    pub version: &'static str,
    /// `connected` if a primary takes writes.
    pub db_primary: Availability,
    /// `connected` if any replica answers; null if no replica is configured.
    pub db_replica: Option<Availability>,
    /// The primary: one, none, or a conflict.
    pub primary: PrimaryStatus,
    /// `true` if the primary serves all reads.
    pub reads_on_primary_only: bool,
    /// Time the program has been monitoring its nodes.
    pub uptime_seconds: u64,
    /// The memory file; null if none is configured.
    pub memory: Option<MemoryReport>,
    /// The nodes, in the order of the configuration.
    pub nodes: Vec<NodeReport>,
}

/// The availability of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    /// It answers.
    Connected,
    /// It does not.
    Disconnected,
}

impl From<bool> for Availability {
    fn from(connected: bool) -> Self {
        if connected { Self::Connected } else { Self::Disconnected }
    }
}

impl Health {
    /// Builds the document from a set's report.
    pub fn of(report: HealthReport) -> Self {
        let answers = |node: &NodeReport| node.status.health == topology::Health::Up;
        let is_replica = |node: &NodeReport| node.status.role == NodeRole::Replica && answers(node);
        let db_replica = (report.nodes.len() > 1).then(|| report.nodes.iter().any(is_replica).into());
        Self {
            status: report.status,
            version: env!("CARGO_PKG_VERSION"),
            db_primary: matches!(report.primary, PrimaryStatus::One { .. }).into(),
            db_replica,
            primary: report.primary,
            reads_on_primary_only: report.reads_on_primary_only,
            uptime_seconds: report.uptime_seconds,
            memory: report.memory,
            nodes: report.nodes,
        }
    }
}

/// The document of `/ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Readiness {
    /// `true` if requests should be sent here.
    pub ready: bool,
    /// `true` if some node serves reads.
    pub reads: bool,
    /// `true` if some node takes writes.
    pub writes: bool,
}

impl Readiness {
    /// Checks which requests a set's nodes can serve.
    ///
    /// A service that can only read still gets requests.
    pub fn of(set: &ReplicaSet) -> Self {
        let topology = set.topology();
        let open = !set.is_closed();
        let reads = open && topology.nodes.iter().any(|node| node.serves_reads);
        let writes = open && topology.nodes.iter().any(|node| node.serves_writes);
        Self { ready: reads || writes, reads, writes }
    }
}

pub(super) async fn live() -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-store")], Json(serde_json::json!({ "status": "live" })))
}

pub(super) async fn ready(State(service): State<Service>) -> impl IntoResponse {
    let mut readiness = Readiness::of(&service.set);
    readiness.ready &= !service.draining.load(Ordering::Acquire);
    (status_of(readiness.ready), [(header::CACHE_CONTROL, "no-store")], Json(readiness))
}

pub(super) async fn health(State(service): State<Service>) -> impl IntoResponse {
    let mut health = Health::of(service.set.health());
    if service.set.is_closed() {
        health.status = Status::Unhealthy;
    }
    let status = status_of(matches!(health.status, Status::Healthy | Status::Degraded));
    (status, [(header::CACHE_CONTROL, "no-store")], Json(health))
}

fn status_of(well: bool) -> StatusCode {
    if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
