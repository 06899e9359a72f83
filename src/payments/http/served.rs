//! An answer that names the node that served it.

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use uuid::Uuid;

use super::error::ApiError;
use crate::conn::AsyncFunc;
use crate::payments;
use crate::{Conn, Intent, Read, ReadOptions, Role, Session};

/// The header with the role in which a node served.
const ROLE: HeaderName = HeaderName::from_static("x-served-by-role");
/// The header with the node's name.
const NODE: HeaderName = HeaderName::from_static("x-served-by-node");

/// The node that served a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServedBy {
    role: Role,
    node: String,
}

impl ServedBy {
    pub(super) fn of<I: Intent>(conn: &Conn<I>) -> Self {
        Self { role: conn.role(), node: conn.node().to_owned() }
    }

    pub(super) fn is_replica(&self) -> bool {
        self.role == Role::Replica
    }

    /// Adds the headers of an answer.
    pub(super) fn insert_into(&self, headers: &mut HeaderMap) {
        headers.insert(ROLE, HeaderValue::from_static(self.role.as_str()));
        // A name that fits into no header is left out; `/health` has it.
        if let Ok(node) = HeaderValue::from_str(&self.node) {
            headers.insert(NODE, node);
        }
    }
}

/// A document, and the node that it came from.
#[derive(Debug)]
pub(super) struct Served<T> {
    status: StatusCode,
    by: ServedBy,
    document: T,
}

impl<T> Served<T> {
    pub(super) fn by<I: Intent>(conn: &Conn<I>, document: T) -> Self {
        Self { status: StatusCode::OK, by: ServedBy::of(conn), document }
    }

    /// Returns the result; a failure is classified by its connection's state.
    pub(super) fn result<I: Intent>(
        conn: &Conn<I>,
        result: Result<T, payments::Error>,
    ) -> Result<Self, ApiError> {
        result.map(|document| Self::by(conn, document)).map_err(|error| ApiError::of(error, conn))
    }

    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Served<U> {
        let Self { status, by, document } = self;
        Served { status, by, document: change(document) }
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
        let Self { status, by, document } = self;
        document.map(|document| Served { status, by, document })
    }

    /// Returns the object, or an error if there is none.
    fn found(self, what: &str, id: Uuid) -> Result<Served<T>, ApiError> {
        let by = self.by.clone();
        self.transpose().ok_or_else(|| ApiError::not_found(format!("there is no {what} {id}")).served_by(by))
    }
}

/// Finds one object; if a replica lacks it, asks again, the primary first.
///
/// A client may follow the `location` of an answer before the replica has the object, and without the answer's token.
/// The second read takes a permit of `reads.max_fallback`, so requests for missing objects cannot overload the primary.
pub(super) async fn find<T, F>(
    session: &Session,
    what: &str,
    id: Uuid,
    find: F,
) -> Result<Served<T>, ApiError>
where
    for<'r> F: AsyncFnOnce(&'r mut Conn<Read>) -> Result<Served<Option<T>>, ApiError>
        + AsyncFunc<&'r mut Conn<Read>, Result<Served<Option<T>>, ApiError>, Fut: Send>
        + Clone
        + Send,
    T: Send,
{
    let read = session.run_read(find.clone()).await?;
    if read.document.is_some() || !read.by.is_replica() {
        return read.found(what, id);
    }
    let primary_first = ReadOptions::new().prefer_primary();
    session.run_read_with(&primary_first, find).await?.found(what, id)
}

impl<T: Serialize> IntoResponse for Served<T> {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.document)).into_response();
        self.by.insert_into(response.headers_mut());
        response
    }
}
