//! An answer that names the node that served it.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use uuid::Uuid;

use super::error::ApiError;
use crate::payments;
use crate::{Conn, Intent, Role};

/// The header with the role in which a node served.
const ROLE: HeaderName = HeaderName::from_static("x-served-by-role");
/// The header with the node's name.
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

    /// Returns the result; a failure is classified by its connection's state.
    pub(super) fn result<I: Intent>(
        conn: &Conn<I>,
        result: Result<T, payments::Error>,
    ) -> Result<Self, ApiError> {
        result.map(|document| Self::by(conn, document)).map_err(|error| ApiError::of(error, conn))
    }

    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Served<U> {
        let Self { status, role, node, document } = self;
        Served { status, role, node, document: change(document) }
    }

    pub(super) fn document(&self) -> &T {
        &self.document
    }

    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }
}

impl<T> Served<Option<T>> {
    /// Returns the object, if there is one.
    pub(super) fn transpose(self) -> Option<Served<T>> {
        let Self { status, role, node, document } = self;
        document.map(|document| Served { status, role, node, document })
    }

    /// Returns the object, or an error if there is none.
    pub(super) fn found(self, what: &str, id: Uuid) -> Result<Served<T>, ApiError> {
        self.transpose().ok_or_else(|| ApiError::not_found(format!("there is no {what} {id}")))
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
