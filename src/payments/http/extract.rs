//! The parts of a request, and the errors if they can't be read.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::{Json, RequestExt};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::Service;
use super::error::ApiError;
use crate::Session;

/// A body of JSON.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned + Send + 'static> FromRequest<Service> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, service: &Service) -> Result<Self, ApiError> {
        let limit = service.settings.body_timeout;
        match tokio::time::timeout(limit, request.extract::<Json<T>, _>()).await {
            Ok(Ok(Json(body))) => Ok(Self(body)),
            Ok(Err(rejection)) => Err(refuse(rejection)),
            Err(_) => {
                let message = format!("the body did not arrive within {limit:?}, and nothing was changed");
                Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message))
            }
        }
    }
}

fn refuse(rejection: JsonRejection) -> ApiError {
    let (status, message) = (rejection.status(), rejection.body_text());
    match rejection {
        JsonRejection::JsonSyntaxError(_) => ApiError::bad_request("malformed_json", message),
        JsonRejection::JsonDataError(_) => ApiError::invalid("invalid_body", message),
        JsonRejection::MissingJsonContentType(_) => ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "send `content-type: application/json`",
        ),
        _ if status == StatusCode::PAYLOAD_TOO_LARGE => ApiError::body_too_large(),
        _ => ApiError::bad_request("unreadable_body", message),
    }
}

/// The part of a URL behind the question mark.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = Query::<T>::from_request_parts(parts, state).await;
        let Query(params) = params.map_err(|rejection: QueryRejection| {
            ApiError::bad_request("invalid_query", rejection.body_text())
        })?;
        Ok(Self(params))
    }
}

/// One part of the path.
pub(super) struct Segment<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segment<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let segment = Path::<T>::from_request_parts(parts, state).await;
        let Path(segment) = segment.map_err(|rejection: PathRejection| {
            ApiError::bad_request("invalid_path", rejection.body_text())
        })?;
        Ok(Self(segment))
    }
}

/// The id in the path.
pub(super) struct Id(pub(super) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Segment(text) = Segment::<String>::from_request_parts(parts, state).await?;
        let id = Uuid::try_parse(&text);
        Ok(Self(id.map_err(|_| ApiError::bad_request("invalid_id", "the id in the path is not a UUID"))?))
    }
}

/// The session of the request.
///
/// [`CausalLayer`](crate::tower::CausalLayer) has opened it.
pub(super) struct InSession(pub(super) Session);

impl<S: Send + Sync> FromRequestParts<S> for InSession {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        parts.extensions.get().cloned().map(Self).ok_or_else(|| {
            tracing::error!("a route lacks the layer that opens sessions");
            ApiError::internal()
        })
    }
}

/// Parses a value, or returns an error with the given code.
pub(super) fn value<T>(name: &str, code: &'static str, text: &str) -> Result<T, ApiError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    text.parse().map_err(|error| ApiError::invalid(code, format!("`{name}`: {error}")))
}

/// As [`value`], if the value may be left out.
pub(super) fn optional<T>(name: &str, code: &'static str, text: Option<&str>) -> Result<Option<T>, ApiError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    text.map(|text| value(name, code, text)).transpose()
}
