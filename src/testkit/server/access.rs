//! Who gets in: connection slots and passwords.

use super::Server;
use crate::testkit::APP;
use crate::testkit::error::{Result, TestkitError};
use futures_util::future::join_all;
use std::fmt;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

/// A password that is wrong, and stands out where it should not be seen.
const WRONG_PASSWORD: &str = "wrong-sesame";

/// How many connections are opened at once: an authentication costs processor time on both sides.
const AT_ONCE: usize = 8;

/// Holds all connection slots of a server until it is dropped.
///
/// It comes from [`Server::exhaust_connections`].
#[must_use = "the slots are free again when this is dropped"]
pub struct ExhaustedConnections {
    held: Vec<(Client, JoinHandle<()>)>,
}

impl ExhaustedConnections {
    /// Returns how many slots are held.
    pub fn count(&self) -> usize {
        self.held.len()
    }
}

impl fmt::Debug for ExhaustedConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExhaustedConnections").field("count", &self.count()).finish()
    }
}

impl Drop for ExhaustedConnections {
    fn drop(&mut self) {
        for (_, driver) in &self.held {
            driver.abort();
        }
    }
}

impl Server {
    /// Takes every connection slot that is free, so that the next client is refused (53300).
    ///
    /// The slots that are reserved for superusers stay free, so SQL for administration goes on. A client
    /// that is connected already keeps its slot, and one that leaves makes room for another.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(cluster: pointsman::testkit::Cluster) -> pointsman::testkit::Result<()> {
    /// let exhausted = cluster.replica(0).exhaust_connections().await?;
    /// // … "sorry, too many clients already" …
    /// drop(exhausted);
    /// # Ok(()) }
    /// ```
    pub async fn exhaust_connections(&self) -> Result<ExhaustedConnections> {
        let url = &self.url();
        let mut exhausted = ExhaustedConnections { held: Vec::new() };
        loop {
            for attempt in join_all((0..AT_ONCE).map(|_| tokio_postgres::connect(url, NoTls))).await {
                match attempt {
                    Ok((client, connection)) => {
                        exhausted.held.push((client, tokio::spawn(async move { drop(connection.await) })));
                    }
                    Err(error) if error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS) => {
                        return Ok(exhausted);
                    }
                    Err(source) => return Err(TestkitError::Sql { server: self.name().to_owned(), source }),
                }
            }
        }
    }

    /// Changes the password of the role `app`, through the primary and for all servers.
    ///
    /// Sessions that are open stay open. [`url`](Self::url) has the new password from here on; a URL
    /// that was taken before has the old one. Standbys know it once they have replayed the change.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute); a standby refuses.
    pub async fn change_password(&self, password: &str) -> Result<()> {
        let quoted = password.replace('\'', "''");
        self.execute(&format!("ALTER ROLE {APP} PASSWORD '{quoted}'")).await?;
        password.clone_into(&mut self.lock(&self.inner.shared.app_password));
        Ok(())
    }

    /// Returns the URL for the program under test with a wrong password (28P01).
    pub fn wrong_password_url(&self) -> String {
        self.app_url(self.port(), WRONG_PASSWORD)
    }
}
