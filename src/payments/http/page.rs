//! The nodes, for people: a page that asks `/health` every second.

use axum::http::header;
use axum::response::{Html, IntoResponse};

/// Everything is in the page itself, so it may load nothing else.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";

pub(super) async fn page() -> impl IntoResponse {
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(include_str!("page.html")))
}
