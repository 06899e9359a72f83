//! Futures that are polled together, sent to other threads, and run by a web server.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use futures_util::future::{BoxFuture, try_join_all};
use futures_util::{FutureExt, try_join};
use pointsman::prelude::*;
use pointsman::{CheckoutError, ReplicaSet};
use fixture::{User, Users, posts, users};

pub async fn pipelined(conn: &Conn<Read>) -> QueryResult<(i64, i64, Option<User>)> {
    try_join!(users::table.count().get_result(conn), posts::table.count().get_result(conn), async {
        User::query().first(conn).await.optional()
    },)
}

pub async fn pipelined_in_a_transaction(conn: &mut Conn<Write>) -> QueryResult<(i64, usize)> {
    conn.transaction(async |tx| {
        let tx = &*tx;
        try_join!(users::table.count().get_result(tx), diesel::delete(users::table).execute(tx))
    })
    .await
}

pub async fn many(conn: &Conn<Read>, ids: &[i32]) -> QueryResult<Vec<User>> {
    try_join_all(ids.iter().map(|id| User::query().find(*id).first(conn))).await
}

pub fn spawned(mut conn: Conn<Read>) -> tokio::task::JoinHandle<QueryResult<i64>> {
    tokio::spawn(async move { conn.transaction(async |tx| users::table.count().get_result(tx).await).await })
}

pub fn spawned_writer(mut conn: Conn<Write>, name: String) -> tokio::task::JoinHandle<QueryResult<usize>> {
    tokio::spawn(async move {
        conn.rename(1, &name).await?;
        conn.build_transaction()
            .serializable()
            .run(async |tx| tx.transaction(async |tx| tx.rename(2, &name).await).await)
            .await
    })
}

pub fn shared_by_tasks(conn: Arc<Conn<Read>>) {
    for id in 0..3 {
        let conn = Arc::clone(&conn);
        tokio::spawn(async move { conn.find(id).await });
    }
}

pub fn boxed(conn: &Conn<Read>) -> BoxFuture<'_, QueryResult<Vec<User>>> {
    async { User::query().load(conn).await }.boxed()
}

fn unavailable(_: CheckoutError) -> StatusCode {
    StatusCode::SERVICE_UNAVAILABLE
}

async fn count(State(set): State<ReplicaSet>) -> Result<Json<i64>, StatusCode> {
    let conn = set.read().await.map_err(unavailable)?;
    let count = users::table.count().get_result(&conn).await;
    count.map(Json).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn rename(
    State(set): State<ReplicaSet>,
    Path((id, name)): Path<(i32, String)>,
) -> Result<Json<usize>, StatusCode> {
    let mut conn = set.write().await.map_err(unavailable)?;
    let renamed = conn.transaction(async |tx| tx.rename(id, &name).await).await;
    renamed.map(Json).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn exists<P: Provider>(State(provider): State<P>, Path(id): Path<i32>) -> StatusCode {
    let Ok(conn) = provider.checkout().await else { return StatusCode::SERVICE_UNAVAILABLE };
    match conn.find(id).await {
        Ok(Some(_)) => StatusCode::OK,
        Ok(None) => StatusCode::NOT_FOUND,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

pub trait Provider: Clone + Send + Sync + 'static {
    fn checkout(&self) -> impl Future<Output = Result<Conn<Read>, CheckoutError>> + Send;
}

impl Provider for ReplicaSet {
    async fn checkout(&self) -> Result<Conn<Read>, CheckoutError> {
        self.read().await
    }
}

pub fn router(set: ReplicaSet) -> Router {
    Router::new()
        .route("/users/count", get(count))
        .route("/users/{id}", get(exists::<ReplicaSet>))
        .route("/users/{id}/{name}", get(rename))
        .with_state(set)
}
