//! A tower layer that runs each request in a session.
//!
//! * [`CausalLayer`]: its options, and what it does
//! * [`CausalCookie`]: a token in a cookie
//! * [`CausalService`]: the service that the layer makes

use std::fmt;
use std::sync::Arc;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tower_layer::Layer;

pub use self::cookie::{CausalCookie, InvalidCookieName};
pub use self::service::{CausalFuture, CausalService};
use super::Session;
use crate::error::CausalError;
use crate::replica_set::ReplicaSet;
use crate::token::{CausalToken, InvalidToken, LONGEST, TokenKey};

mod cookie;
mod service;
#[cfg(test)]
mod tests;

/// The header that carries a token, unless the layer is given another one.
const HEADER: HeaderName = HeaderName::from_static("x-causal-token");

/// A layer that runs each request in a [`Session`].
///
/// It reads the token of the request from the header `x-causal-token`, from a cookie, or from both. It puts a session
/// into the extensions of the request, where the handler finds it. The response carries the token of what the session
/// has seen, if it has seen anything.
///
/// ```
/// use axum::routing::get;
/// use axum::{Extension, Router};
/// use pointsman::prelude::*;
/// use pointsman::tower::CausalLayer;
/// use pointsman::{Error, ReplicaSet, Session};
///
/// diesel::table! { users (id) { id -> Integer, name -> Text, } }
///
/// // It sees what the earlier requests of the same client wrote.
/// async fn count(Extension(session): Extension<Session>) -> String {
///     let count = session.run_read(async |conn| Ok::<i64, Error>(users::table.count().get_result(conn).await?));
///     count.await.map_or_else(|error| error.to_string(), |count| count.to_string())
/// }
///
/// fn router(set: ReplicaSet) -> Router {
///     Router::new().route("/users/count", get(count)).layer(CausalLayer::new(set))
/// }
/// ```
///
/// # Invalid tokens
///
/// [`OnInvalidToken`] decides about a token that is malformed, damaged, forged, of another cluster, or far beyond
/// everything that the cluster has written. The last case waits for a probe of the monitors, at most ten a second for
/// all requests together, and never reaches a database through a pool. A position just beyond the last probe may be one
/// that another program has just written. So the session judges it, and the handler may get
/// [`CausalError::Ahead`]. The handler also gets [`CausalError::Lost`] and [`CausalError::HistoryUnknown`].
///
/// # Keys
///
/// Tokens are signed with the key of the configuration (`causal.token_key`), which a reload may change, or with
/// [`key`](Self::key). With a key, an unsigned token is invalid.
///
/// # Streaming bodies
///
/// The token is taken when the inner service returns the head of its response. What a streamed body reads or writes
/// afterwards, and what a spawned task does, is in no token. A handler that writes while it streams sends
/// [`Session::token`] itself, at the end of the body or in a trailer.
///
/// # Parallel requests
///
/// The token of a response covers that of its request, and nothing of requests that ran beside it. A browser keeps the
/// cookie that arrived last. A client that sends requests in parallel continues with the token of the one that wrote.
///
/// # Cancel safety
///
/// A dropped future drops the inner service's future. The layer leaves nothing behind.
pub struct CausalLayer<B> {
    set: ReplicaSet,
    header: Option<HeaderName>,
    cookie: Option<CausalCookie>,
    key: Option<TokenKey>,
    on_invalid: Option<OnInvalidToken>,
    reject: Arc<Reject<B>>,
}

/// A function that creates the response to a rejected request.
type Reject<B> = dyn Fn(&RefusedToken) -> Response<B> + Send + Sync;

/// The treatment of a request whose token is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInvalidToken {
    /// It is answered with 400; the default for a token in a header.
    Reject,
    /// It runs in a new session.
    ///
    /// This is the default for a token in a cookie, because a browser cannot correct one.
    Ignore,
}

/// The reason why the token of a request is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusedToken {
    /// The text is no token of this program.
    #[error(transparent)]
    Text(#[from] InvalidToken),
    /// The token is of another cluster, or beyond everything that this one has written.
    #[error(transparent)]
    Position(#[from] CausalError),
}

impl<B: From<String>> CausalLayer<B> {
    /// Creates a layer that carries tokens in the header `x-causal-token`.
    pub fn new(set: ReplicaSet) -> Self {
        let reject = Arc::new(|refused: &RefusedToken| {
            let mut response = Response::new(B::from(format!("{refused}\n")));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
            response
        });
        Self { set, header: Some(HEADER), cookie: None, key: None, on_invalid: None, reject }
    }
}

impl<B> CausalLayer<B> {
    /// Sets the header that carries tokens.
    #[must_use]
    pub fn header(self, name: HeaderName) -> Self {
        Self { header: Some(name), ..self }
    }

    /// Carries tokens in a cookie as well.
    ///
    /// A session then covers both tokens of a request.
    #[must_use]
    pub fn cookie(self, cookie: CausalCookie) -> Self {
        Self { cookie: Some(cookie), ..self }
    }

    /// Carries tokens in no header, so that only a cookie is left.
    #[must_use]
    pub fn without_header(self) -> Self {
        Self { header: None, ..self }
    }

    /// Signs tokens with this key, instead of the one of the configuration.
    #[must_use]
    pub fn key(self, key: TokenKey) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Sets what happens to a request with an invalid token.
    #[must_use]
    pub fn on_invalid(self, on_invalid: OnInvalidToken) -> Self {
        Self { on_invalid: Some(on_invalid), ..self }
    }

    /// Sets the response to a request that is rejected.
    #[must_use]
    pub fn reject_with(
        self,
        response: impl Fn(&RefusedToken) -> Response<B> + Send + Sync + 'static,
    ) -> Self {
        Self { reject: Arc::new(response), ..self }
    }

    /// Opens the session of a request.
    async fn open(&self, request: &HeaderMap) -> Result<Opened, Rejected> {
        let in_header = self.header.as_ref().and_then(|name| request.get(name)).map(HeaderValue::as_bytes);
        let in_cookie = self.cookie.as_ref().and_then(|cookie| cookie.find(request.get_all(COOKIE)));
        let mut session = None;
        for (text, default) in [(in_header, OnInvalidToken::Reject), (in_cookie, OnInvalidToken::Ignore)] {
            let Some(text) = text.filter(|text| !text.is_empty()) else { continue };
            let Err(refused) = self.follow(&mut session, text).await else { continue };
            if self.on_invalid.unwrap_or(default) == OnInvalidToken::Reject {
                return Err(Rejected { refused, had_cookie: in_cookie.is_some() });
            }
            tracing::debug!(%refused, "the causal token of a request is ignored");
        }
        let session = session.unwrap_or_else(|| self.set.session());
        Ok(Opened { session, had_cookie: in_cookie.is_some() })
    }

    /// Adds what a token covers to a session.
    async fn follow(&self, session: &mut Option<Session>, text: &[u8]) -> Result<(), RefusedToken> {
        let token = self.parse(text)?;
        self.set.refute(&token).await?;
        match session {
            Some(session) if !session.observe(&token) => return Err(CausalError::Foreign.into()),
            Some(_) => {}
            None => *session = Some(self.set.session_from(&token)),
        }
        Ok(())
    }

    fn parse(&self, text: &[u8]) -> Result<CausalToken, InvalidToken> {
        // Long text is not even read.
        if text.len() > LONGEST {
            return Err(InvalidToken::Malformed);
        }
        let text = str::from_utf8(text).map_err(|_| InvalidToken::Malformed)?;
        self.with_key(|key| key.map_or_else(|| text.parse(), |key| key.verify(text)))
    }

    /// Adds the token of what a session has seen to a response.
    fn close(&self, Opened { session, had_cookie }: &Opened, response: &mut HeaderMap) {
        let Some(token) = session.token() else { return self.remove_cookie(*had_cookie, response) };
        let text = self.with_key(|key| key.map_or_else(|| token.to_string(), |key| key.sign(&token)));
        if let (Some(name), Ok(value)) = (&self.header, HeaderValue::from_str(&text)) {
            response.insert(name, value);
        }
        if let Some(value) = self.cookie.as_ref().and_then(|cookie| cookie.set(&text)) {
            response.append(SET_COOKIE, value);
        }
    }

    /// Removes the cookie of a client, which would come back with each request.
    fn remove_cookie(&self, had_cookie: bool, response: &mut HeaderMap) {
        if let Some(value) = self.cookie.as_ref().filter(|_| had_cookie).and_then(CausalCookie::removal) {
            response.append(SET_COOKIE, value);
        }
    }

    /// Calls a function with the key that is in force.
    fn with_key<T>(&self, function: impl FnOnce(Option<&TokenKey>) -> T) -> T {
        match &self.key {
            Some(key) => function(Some(key)),
            None => function(self.set.config().token_key()),
        }
    }
}

/// The session of a request that runs.
struct Opened {
    session: Session,
    /// `true` if the request carried the cookie, with whichever token.
    had_cookie: bool,
}

/// A request that does not run.
struct Rejected {
    refused: RefusedToken,
    had_cookie: bool,
}

impl<S, B> Layer<S> for CausalLayer<B> {
    type Service = CausalService<S, B>;

    fn layer(&self, inner: S) -> CausalService<S, B> {
        CausalService::new(self.clone(), inner)
    }
}

impl<B> Clone for CausalLayer<B> {
    fn clone(&self) -> Self {
        Self {
            set: self.set.clone(),
            header: self.header.clone(),
            cookie: self.cookie.clone(),
            key: self.key.clone(),
            on_invalid: self.on_invalid,
            reject: Arc::clone(&self.reject),
        }
    }
}

impl<B> fmt::Debug for CausalLayer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CausalLayer")
            .field("header", &self.header)
            .field("cookie", &self.cookie)
            .field("on_invalid", &self.on_invalid)
            .finish_non_exhaustive()
    }
}
