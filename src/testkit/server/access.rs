//! Access to a server: connection slots and passwords.

use super::Server;
use crate::testkit::APP;
use crate::testkit::error::{Result, TestkitError};
use crate::testkit::poll::until;
use std::fmt;
use std::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

/// A wrong password, which is easy to find in places that must not show it.
const WRONG_PASSWORD: &str = "wrong-sesame";

/// Checks that every ordinary slot is taken; the asking connection does not count.
const IS_FULL: &str = "
    SELECT count(*) >= current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true)::int, 0)
    FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";

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
    /// Takes every free connection slot, so that the next client is refused (53300).
    ///
    /// The slots reserved for superusers stay free, so SQL for administration goes on. A connected client keeps its
    /// slot, and one that leaves makes room for another.
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
        let exhausted = &Mutex::new(ExhaustedConnections { held: Vec::new() });
        // One after the other: connections that start together fill the slots while the server refuses them, and leave
        // some free.
        until(self.name(), "to have no slot left", || async move {
            match tokio_postgres::connect(url, NoTls).await {
                Ok((client, connection)) => {
                    let driver = tokio::spawn(async move { drop(connection.await) });
                    self.lock(exhausted).held.push((client, driver));
                }
                Err(error) if error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS) => {
                    return Ok(self.maintenance_session().await?.value(IS_FULL).await? == "t");
                }
                Err(source) => return Err(TestkitError::Sql { server: self.name().to_owned(), source }),
            }
            Ok(false)
        })
        .await?;
        Ok(std::mem::replace(&mut *self.lock(exhausted), ExhaustedConnections { held: Vec::new() }))
    }

    /// Changes the password of the role `app`, through the primary and for all servers.
    ///
    /// Open sessions stay open. [`url`](Self::url) has the new password from here on; an older URL has the old one.
    /// Standbys know the new password once they have replayed the change.
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
