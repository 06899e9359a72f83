//! Every failure as JSON with a stable code.
//!
//! The status shows who has to act: 4xx the caller, 500 the service's operators; 503 passes with time. Failures that
//! are safe to repeat and those that may have been carried out never share a code: the latter have `outcome_unknown`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::served::ServedBy;
use crate::causal::layer::RefusedToken;
use crate::payments;
use crate::{CausalError, CheckoutError, Conn, Intent};

/// Seconds a caller should wait before it repeats a request that found no node.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// A failure that a caller sees.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry: bool,
    /// The node whose answer this is, if one was asked.
    served_by: Option<ServedBy>,
}

#[derive(Serialize)]
struct Document<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    code: &'a str,
    message: &'a str,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry: false, served_by: None }
    }

    /// The request was understood, but a value in it is not acceptable.
    pub(super) fn invalid(code: &'static str, message: impl ToString) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message.to_string())
    }

    pub(super) fn bad_request(code: &'static str, message: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message.to_string())
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(super) fn body_too_large() -> Self {
        let message = "the body is larger than what is accepted here";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }

    /// The request had no effect, and the same one may succeed later.
    pub(super) fn unavailable(code: &'static str, message: impl ToString) -> Self {
        Self { retry: true, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message.to_string()) }
    }

    /// The request may have had its effect.
    pub(super) fn outcome_unknown(message: impl ToString) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "outcome_unknown", message.to_string())
    }

    pub(super) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something went wrong here: the log has it under the `x-request-id` of this answer",
        )
    }

    /// Classifies the failure of a statement, with the state of its connection.
    ///
    /// The statement only read, or was inside a transaction, whose COMMIT has a separate error. So the loss of the
    /// connection undoes the work.
    pub(super) fn of<I: Intent>(error: payments::Error, conn: &Conn<I>) -> Self {
        let classified = match error {
            payments::Error::Query(_) if conn.is_closed() => {
                tracing::warn!(node = conn.node(), %error, "a connection was lost");
                Self::connection_lost()
            }
            error => error.into(),
        };
        classified.served_by(ServedBy::of(conn))
    }

    /// Adds the node whose answer this is.
    pub(super) fn served_by(self, node: ServedBy) -> Self {
        Self { served_by: Some(node), ..self }
    }

    fn connection_lost() -> Self {
        Self::unavailable(
            "connection_lost",
            "the server was lost meanwhile, and nothing was changed: repeat it",
        )
    }
}

/// The errors of BEGIN and COMMIT.
impl From<diesel::result::Error> for ApiError {
    fn from(error: diesel::result::Error) -> Self {
        use diesel::result::DatabaseErrorKind::{ClosedConnection, UnableToSendCommand};
        use diesel::result::Error::DatabaseError;
        match error {
            DatabaseError(ClosedConnection | UnableToSendCommand, _) => {
                tracing::warn!(%error, "a connection was lost");
                Self::connection_lost()
            }
            error => payments::Error::from(error).into(),
        }
    }
}

impl From<CheckoutError> for ApiError {
    fn from(error: CheckoutError) -> Self {
        let code = match &error {
            CheckoutError::Causal(error) => return error.into(),
            CheckoutError::NoPrimary { .. } | CheckoutError::Stale { .. } => "no_primary",
            CheckoutError::NoNode { .. } => "no_node",
            CheckoutError::CannotConnect { .. } => "cannot_connect",
            CheckoutError::SplitBrain { .. } => "split_brain",
            CheckoutError::IdentifierMismatch { .. } => "identifier_mismatch",
            CheckoutError::Exhausted { .. }
            | CheckoutError::TooManyWaiters { .. }
            | CheckoutError::FallbackExhausted { .. } => "overloaded",
            CheckoutError::Closed => "closing",
        };
        tracing::warn!(code, %error, "no connection could be had");
        // The addresses and states of the nodes are for operators: the log and `/health` have them.
        let message = match code {
            "no_primary" => "there is no primary to write to at the moment",
            "no_node" => "no node can serve this at the moment",
            "cannot_connect" => "the database accepts no more connections at the moment",
            "split_brain" => {
                "several primaries were found, so nothing is written until an operator leaves one"
            }
            "identifier_mismatch" => {
                "the servers belong to different clusters, so nothing is written until an operator decides"
            }
            "overloaded" => "too many requests wait for the database already",
            _ => "the service is ending",
        };
        Self::unavailable(code, format!("{message}; nothing was changed: repeat it later"))
    }
}

impl From<&CausalError> for ApiError {
    fn from(error: &CausalError) -> Self {
        let conflict = |code, message: &str| Self::new(StatusCode::CONFLICT, code, message.to_owned());
        match error {
            CausalError::Foreign | CausalError::Ahead { .. } => Self::bad_request("invalid_token", error),
            CausalError::Lost { .. } => {
                tracing::error!(%error, "an acknowledged write was lost");
                conflict(
                    "write_lost",
                    "an earlier write of yours was lost by a failover: look what is missing",
                )
            }
            CausalError::HistoryUnknown { .. } | CausalError::PositionUnknown { .. } => conflict(
                "history_unknown",
                "it is not known if an earlier write of yours survived a failover: look what is there",
            ),
            CausalError::NotCaughtUp { .. } => {
                tracing::warn!(%error, "no node was far enough for a read");
                Self::unavailable(
                    "not_caught_up",
                    "no server has your last write yet that may answer this; repeat it later".to_owned(),
                )
            }
            _ => {
                tracing::error!(%error, "a request failed");
                Self::internal()
            }
        }
    }
}

impl From<&RefusedToken> for ApiError {
    fn from(refused: &RefusedToken) -> Self {
        Self::bad_request("invalid_token", refused)
    }
}

impl From<payments::Error> for ApiError {
    fn from(error: payments::Error) -> Self {
        use payments::{Conflict, Error};
        let conflict = |code| Self::new(StatusCode::CONFLICT, code, error.to_string());
        match &error {
            Error::NotFound { .. } => Self::not_found(error.to_string()),
            Error::Conflict(Conflict::IdempotencyKey { .. }) => conflict("idempotency_key_reused"),
            Error::Conflict(_) => conflict("conflict"),
            Error::IllegalTransition { .. } => conflict("illegal_transition"),
            Error::Settled { .. } => conflict("already_settled"),
            Error::BadCursor(_) => Self::bad_request("invalid_cursor", &error),
            Error::TimeOutOfRange(_) => Self::invalid("invalid_time", &error),
            Error::OutcomeUnknown(unknown) => {
                tracing::warn!(%error, "the outcome of a request is unknown");
                Self::outcome_unknown(if unknown.committed_locally {
                    "it was carried out, and its standby may not have it: look before you repeat it"
                } else {
                    "the server was lost during the commit, and it is not known if it was carried out: look before you repeat it"
                })
            }
            Error::Query(source) => {
                tracing::error!(error = %source, "a statement failed");
                Self::internal()
            }
            _ => {
                tracing::error!(%error, "a request failed");
                Self::internal()
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(Document { error: Body { code: self.code, message: &self.message } });
        let mut response = (self.status, body).into_response();
        if let Some(node) = &self.served_by {
            node.insert_into(response.headers_mut());
        }
        if self.retry {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}
