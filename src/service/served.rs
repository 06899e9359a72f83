//! An answer that says who served it.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::{Conn, Intent, Role};

/// The header that names the role in which a node served.
const ROLE: HeaderName = HeaderName::from_static("x-served-by-role");
/// The header that names the node.
const NODE: HeaderName = HeaderName::from_static("x-served-by-node");

/// A document, and the node that it came from.
#[derive(Debug)]
pub(super) struct Served<T> {
    status: StatusCode,
    role: Role,
    node: String,
    document: T,
}

impl<T> Served<T> {
    pub(super) fn by<I: Intent>(conn: &Conn<I>, document: T) -> Self {
        Self { status: StatusCode::OK, role: conn.role(), node: conn.node().to_owned(), document }
    }

    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }
}

impl<T: Serialize> IntoResponse for Served<T> {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.document)).into_response();
        let headers = response.headers_mut();
        headers.insert(ROLE, HeaderValue::from_static(self.role.as_str()));
        // A name that fits into no header is left out; `/health` has it.
        if let Ok(node) = HeaderValue::from_str(&self.node) {
            headers.insert(NODE, node);
        }
        response
    }
}
