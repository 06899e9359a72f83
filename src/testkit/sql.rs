//! SQL for administration, on a connection per call.
//!
//! A connection that is kept would belong to the runtime of the test that opened it, but tests with separate runtimes
//! may share a cluster.

use super::error::{Result, TestkitError};
use super::poll::LIMIT;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// A connection of the superuser, closed when it is dropped.
pub(super) struct Session {
    server: String,
    client: Client,
    driver: JoinHandle<()>,
}

impl Session {
    pub(super) async fn open(server: &str, config: &Config) -> Result<Self> {
        let connecting = async {
            let (client, connection) = config.connect(NoTls).await?;
            let driver = tokio::spawn(async move { drop(connection.await) });
            Ok((client, driver))
        };
        let (client, driver) = limited(server, "to accept a connection", connecting).await?;
        Ok(Self { server: server.to_owned(), client, driver })
    }

    /// Runs one or several statements.
    pub(super) async fn execute(&self, sql: &str) -> Result<()> {
        limited(&self.server, "to run a statement", self.client.batch_execute(sql)).await
    }

    /// Returns the first column of the first row as text, and NULL as an empty one.
    pub(super) async fn value(&self, sql: &str) -> Result<String> {
        let answer = limited(&self.server, "to answer a query", self.client.simple_query(sql)).await?;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        });
        row.ok_or_else(|| TestkitError::NoValue { server: self.server.clone() })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Adds the server's name to the error, and limits the wait.
///
/// The server may be stopped.
async fn limited<T>(
    server: &str,
    waiting_for: &str,
    work: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
) -> Result<T> {
    let limit: Duration = LIMIT;
    match timeout(limit, work).await {
        Ok(done) => done.map_err(|source| TestkitError::Sql { server: server.to_owned(), source }),
        Err(_) => Err(TestkitError::Timeout {
            server: server.to_owned(),
            waiting_for: waiting_for.to_owned(),
            limit,
        }),
    }
}
