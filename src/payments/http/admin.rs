//! An operator's decisions, on a separate listener for the same machine only.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};

use super::error::ApiError;
use super::{Health, Service};

/// The header that every request must have.
///
/// A browser lets no foreign page send it without asking first.
pub const ADMIN_HEADER: &str = "x-pointsman-admin";

impl Service {
    /// Returns an operator's endpoints.
    ///
    /// Serve them on a loopback address and nowhere else.
    ///
    /// They are not part of [`router`](Self::router), have no authentication, and require the header [`ADMIN_HEADER`].
    pub fn admin_router(&self) -> Router {
        Router::new()
            .route("/admin/forget-history", post(forget_history))
            .fallback(async || ApiError::not_found("there is no such path: `docs/api.md` lists them"))
            .with_state(self.clone())
    }
}

async fn forget_history(State(service): State<Service>, headers: HeaderMap) -> Response {
    if !headers.contains_key(ADMIN_HEADER) {
        let message = format!("the request lacks the header `{ADMIN_HEADER}`: send it with any value");
        return ApiError::new(StatusCode::FORBIDDEN, "forbidden", message).into_response();
    }
    service.set.forget_history().await;
    let health = Health::of(service.set.health());
    ([(header::CACHE_CONTROL, "no-store")], Json(health)).into_response()
}
