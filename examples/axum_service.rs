//! An axum service whose handlers say by an extractor whether they read or write.
//!
//! A handler with a [`Reader`] cannot write: it has a `Conn<Read>`. The type of its argument is all that a reviewer must look at.
//!
//! ```sh
//! DATABASE_URL=postgres://app:secret@db-1/app DATABASE_REPLICA_URL=postgres://app:secret@db-2/app \
//!     cargo run --example axum_service
//! curl -X POST localhost:3000/notes -d 'Mind the gap'
//! curl localhost:3000/notes/1
//! ```

#![expect(missing_docs, reason = "`table!` makes items that need no documentation in an example")]

use axum::Router;
use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use pointsman::prelude::*;
use pointsman::{Config, Error, ReplicaSet};

diesel::table! { notes (id) { id -> Integer, text -> Text, } }

/// A connection that reads, of a replica or, if none is fit, of the primary.
struct Reader(Conn<Read>);

/// A connection that writes, of the primary.
struct Writer(Conn<Write>);

impl FromRequestParts<ReplicaSet> for Reader {
    type Rejection = Failure;

    async fn from_request_parts(_: &mut Parts, set: &ReplicaSet) -> Result<Self, Failure> {
        Ok(Self(set.read().await?))
    }
}

impl FromRequestParts<ReplicaSet> for Writer {
    type Rejection = Failure;

    async fn from_request_parts(_: &mut Parts, set: &ReplicaSet) -> Result<Self, Failure> {
        Ok(Self(set.write().await?))
    }
}

/// The answer of a handler that fails.
struct Failure(Error);

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self.0 {
            // Nothing was sent to a server, so the client may repeat the request.
            Error::Checkout(error) => {
                (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], error.to_string()).into_response()
            }
            Error::Query(diesel::result::Error::NotFound) => StatusCode::NOT_FOUND.into_response(),
            error => {
                tracing::error!(%error, "a request failed");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

async fn show(Reader(conn): Reader, Path(id): Path<i32>) -> Result<String, Failure> {
    Ok(notes::table.find(id).select(notes::text).first(&conn).await?)
}

async fn add(Writer(conn): Writer, text: String) -> Result<(StatusCode, String), Failure> {
    let new = diesel::insert_into(notes::table).values(notes::text.eq(text)).returning(notes::id);
    let id: i32 = new.get_result(&conn).await?;
    Ok((StatusCode::CREATED, format!("/notes/{id}\n")))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt::init();
    let set = ReplicaSet::connect(Config::from_env()?).await?;
    let table = "CREATE TABLE IF NOT EXISTS notes (id serial PRIMARY KEY, text text NOT NULL)";
    diesel::sql_query(table).execute(&set.write().await?).await?;

    let app =
        Router::new().route("/notes", post(add)).route("/notes/{id}", get(show)).with_state(set.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    let shutdown = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    axum::serve(listener, app).with_graceful_shutdown(shutdown).await?;
    // Waits for connections in use, up to `timeouts.shutdown`.
    Ok(set.close().await?)
}
