//! Handlers and spawned tasks, whose results hold `dyn` and references.

use std::error::Error as StdError;

use axum::extract::State;
use axum::routing::{get, post};
use pointsman::prelude::*;
use pointsman::{CheckoutError, Error, ReadOptions, ReplicaSet, WriteOptions};
use fixture::{Users, users};

type Boxed = Box<dyn StdError + Send + Sync>;

#[derive(Debug)]
pub struct Failure(pub Boxed);

impl<E: StdError + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl axum::response::IntoResponse for Failure {
    fn into_response(self) -> axum::response::Response {
        self.0.to_string().into_response()
    }
}

async fn boxed_error(State(set): State<ReplicaSet>) -> Result<String, Failure> {
    let rows = set.run_read(async |conn| -> Result<Vec<i32>, Failure> { Ok(users::table.select(users::id).load(conn).await?) });
    Ok(format!("{:?}", rows.await?))
}

async fn borrowed_result(State(set): State<ReplicaSet>) -> Result<String, Failure> {
    let name = set.run_write(async |tx| -> Result<&'static str, Failure> {
        tx.rename(1, "a").await?;
        Ok("done")
    });
    Ok(name.await?.to_owned())
}

async fn with_options(State(set): State<ReplicaSet>) -> Result<String, Failure> {
    let options = WriteOptions::new().serializable();
    let value = set.run_write_with(&options, async |tx| -> Result<Box<dyn Fn() -> i32 + Send>, Failure> {
        tx.rename(1, "a").await?;
        let value: Box<dyn Fn() -> i32 + Send> = Box::new(|| 1);
        Ok(value)
    });
    Ok(value.await?().to_string())
}

async fn with_options_of_the_call(State(set): State<ReplicaSet>) -> Result<String, Failure> {
    let ids = set.run_read_with(&ReadOptions::new().prefer_primary(), async |conn| -> Result<Vec<i32>, Failure> {
        Ok(users::table.select(users::id).load(conn).await?)
    });
    Ok(format!("{:?}", ids.await?))
}

async fn in_a_transaction(State(set): State<ReplicaSet>) -> Result<String, Failure> {
    let mut conn = set.write().await?;
    let renamed = conn.transaction(async |tx| -> Result<(usize, &'static str), Failure> {
        let nested = tx.transaction(async |tx| -> Result<usize, Failure> { Ok(tx.rename(1, "a").await?) }).await?;
        Ok((nested, "nested"))
    });
    Ok(renamed.await?.1.to_owned())
}

async fn in_a_built_one(State(set): State<ReplicaSet>) -> Result<String, Failure> {
    let mut conn = set.read().await?;
    let read = conn.build_transaction().repeatable_read().run(async |tx| -> Result<Boxed, Failure> {
        let _: Vec<i32> = users::table.select(users::id).load(tx).await?;
        Ok("a boxed value".into())
    });
    Ok(read.await?.to_string())
}

pub fn router(set: ReplicaSet) -> axum::Router {
    axum::Router::new()
        .route("/boxed", get(boxed_error))
        .route("/borrowed", post(borrowed_result))
        .route("/options", post(with_options).get(with_options_of_the_call))
        .route("/transaction", post(in_a_transaction))
        .route("/built", get(in_a_built_one))
        .with_state(set)
}

pub fn spawned(set: ReplicaSet, name: String) -> tokio::task::JoinHandle<Result<usize, Error>> {
    tokio::spawn(async move {
        let name = name.as_str();
        set.run_write(async move |tx| -> Result<usize, Error> { Ok(tx.rename(1, name).await?) }).await
    })
}

/// The options may be temporaries of the call.
pub fn joined(set: ReplicaSet) -> tokio::task::JoinHandle<Result<(), CheckoutError>> {
    tokio::spawn(async move {
        let read = set.read_with(&ReadOptions::new().within(std::time::Duration::from_secs(1)));
        let write = set.write_with(&WriteOptions::new().no_wait());
        let (read, write) = (read.await?, write.await?);
        drop((read, write));
        Ok(())
    })
}
