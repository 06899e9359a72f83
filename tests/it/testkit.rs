//! The test kit against itself: each fault has the effect that it promises.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod access;
mod faults;
#[cfg(target_os = "linux")]
mod program_folder;
mod proxy;
mod replication;
mod rollback;
mod start;
mod tidy;

use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, NoTls};

/// Long enough for an answer to arrive, if there is one.
const SILENCE: Duration = Duration::from_millis(400);

/// Connects as the program under test does.
async fn connect(url: &str) -> Result<Client, Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn ask(client: &Client, sql: &str) -> Result<String, Error> {
    Ok(client.query_one(sql, &[]).await?.get(0))
}

fn code(error: &Error) -> Option<&SqlState> {
    error.code()
}

/// Returns `true` if the future is still not done after a while.
async fn hangs<T>(future: impl Future<Output = T>) -> bool {
    tokio::time::timeout(SILENCE, future).await.is_err()
}
