//! The layers around all endpoints: ids, a log line, limits, and unknown paths.

use std::any::Any;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};
use tower_http::trace::TraceLayer;
use tracing::Span;

use super::error::ApiError;
use super::settings::Settings;
use crate::ReplicaSet;
use crate::causal::layer::CausalLayer;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Puts the layers around the routes; the last one is the outermost.
pub(super) fn around(routes: Router, settings: &Settings) -> Router {
    let (limit, largest) = (settings.request_timeout, settings.body_limit);
    let trace = TraceLayer::new_for_http()
        .make_span_with(span)
        .on_request(())
        .on_response(answered)
        // A failure was logged at its origin, with its cause.
        .on_failure(());
    routes
        .fallback(async || ApiError::not_found("there is no such path: `docs/api.md` lists them"))
        .method_not_allowed_fallback(async || {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            ApiError::new(
                status,
                "method_not_allowed",
                "this path does not know the method: see the `allow` header",
            )
        })
        .layer(DefaultBodyLimit::max(largest))
        .layer(middleware::from_fn(move |request, next| announced(largest, request, next)))
        .layer(middleware::from_fn(move |request, next| within(limit, request, next)))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(trace)
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .layer(middleware::map_request(keep_short_id))
}

/// Returns the layer that runs each request in a session.
pub(super) fn session(set: &ReplicaSet) -> CausalLayer<Body> {
    CausalLayer::new(set.clone()).reject_with(|refused| ApiError::from(refused).into_response())
}

/// Logs the path alone, because the query may contain a customer's data.
fn span(request: &Request) -> Span {
    let id = request.extensions().get::<RequestId>().and_then(|id| id.header_value().to_str().ok());
    let (method, path) = (request.method(), request.uri().path());
    tracing::info_span!("request", %method, path, id = id.unwrap_or_default())
}

/// Logs an answer, at `debug` unless the service failed.
///
/// There are thousands a second.
fn answered(response: &Response, took: Duration, _span: &Span) {
    let status = response.status().as_u16();
    if response.status().is_server_error() {
        tracing::warn!(status, ?took, "answered");
    } else {
        tracing::debug!(status, ?took, "answered");
    }
}

/// Maximum characters of a request id that a client may choose.
const LONGEST_ID: usize = 128;

/// Removes a client's unusable request id, so that a new one is made.
async fn keep_short_id(mut request: Request) -> Request {
    let headers = request.headers_mut();
    let is_fine = |id: &[u8]| id.len() <= LONGEST_ID && id.iter().all(u8::is_ascii_graphic);
    if headers.get(&X_REQUEST_ID).is_some_and(|id| !is_fine(id.as_bytes())) {
        headers.remove(&X_REQUEST_ID);
    }
    request
}

/// Refuses a body by its announced length, before the client is told to send it.
async fn announced(largest: usize, request: Request, next: Next) -> Response {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    match length {
        Some(length) if length > largest as u64 => ApiError::body_too_large().into_response(),
        _ => next.run(request).await,
    }
}

/// Ends requests that take too long.
///
/// The connection of a cancelled transaction is never used again.
async fn within(limit: Duration, request: Request, next: Next) -> Response {
    let only_reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) if only_reads => {
            ApiError::unavailable("timeout", format!("this took longer than {limit:?}")).into_response()
        }
        Err(_) => ApiError::outcome_unknown(format!(
            "this took longer than {limit:?}, and may have been carried out: look before you repeat it"
        ))
        .into_response(),
    }
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    tracing::error!(panic = words, "a handler panicked");
    ApiError::internal().into_response()
}
