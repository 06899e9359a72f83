//! The last balances, from the replicas.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout_at};

use super::file::Entry;
use super::first::First;
use super::position;
use super::report::{Difference, DifferenceAt, ReplayError};
use super::run::Replay;
use crate::lsn::Lsn;
use crate::payments::TransactionRepository;
use crate::{Conn, Read, Role};

/// Time limit of the wait for replicas.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two checks of a replica's position.
const PAUSE: Duration = Duration::from_millis(10);

/// The requirements of a replica before it is asked.
struct Caught {
    position: Lsn,
    deadline: Instant,
    /// The nodes that reached it.
    nodes: Mutex<HashSet<String>>,
}

impl Caught {
    fn nodes(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.nodes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Replay<'_> {
    /// Compares the last balance of each account on replicas.
    ///
    /// If there is none, it asks the primary.
    pub(super) async fn verify(&self, workers: usize) -> Result<Option<Difference>, ReplayError> {
        let primary = self.set.write().await.map_err(|source| ReplayError::Checkout { line: 1, source })?;
        let position = position::written(primary.as_read()).await.map_err(ReplayError::Position)?;
        drop(primary);
        let caught = Caught { position, deadline: Instant::now() + PATIENCE, nodes: Mutex::default() };
        let last: Vec<&Entry> = self.ledger.last().collect();
        let first = First::new();
        let shares = last.chunks(last.len().div_ceil(workers).max(1));
        join_all(shares.map(|share| self.verify_share(share, &caught, &first))).await;
        first.into_inner().transpose()
    }

    async fn verify_share(
        &self,
        share: &[&Entry],
        caught: &Caught,
        first: &First<Result<Difference, ReplayError>>,
    ) {
        for entry in share.iter().filter(|entry| !first.is_before(entry.line)) {
            match self.verify_last(entry, caught).await {
                Ok(None) => {}
                Ok(Some(difference)) => first.put(entry.line, Ok(difference)),
                Err(error) => first.put(entry.line, Err(error)),
            }
        }
    }

    async fn verify_last(&self, entry: &Entry, caught: &Caught) -> Result<Option<Difference>, ReplayError> {
        loop {
            let conn = self.replica(entry.line, caught).await?;
            let outcome = async {
                self.catch_up(&conn, caught).await?;
                conn.balance(&entry.account, &self.settings.asset)
                    .await
                    .map_err(|source| ReplayError::Line { line: entry.line, source })
            }
            .await;
            match outcome {
                Ok(balance) => return Ok(self.compare(entry, balance, DifferenceAt::End, conn.node())),
                // A read is safe to repeat, on another node.
                Err(error) if conn.is_closed() && Instant::now() < caught.deadline => {
                    tracing::warn!(line = entry.line, node = conn.node(), %error, "a balance is read again");
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Checks out a replica, and waits until one is fit.
    ///
    /// It takes the primary only if there is no replica.
    async fn replica(&self, line: u64, caught: &Caught) -> Result<Conn<Read>, ReplayError> {
        let mut changes = self.set.watch();
        loop {
            let conn = self.set.read().await.map_err(|source| ReplayError::Checkout { line, source })?;
            if conn.role() == Role::Replica || !self.has_replicas() {
                return Ok(conn);
            }
            drop(conn);
            if Instant::now() >= caught.deadline {
                return Err(ReplayError::NoReplica { waited: PATIENCE });
            }
            let _ = timeout_at(caught.deadline.min(Instant::now() + PAUSE), changes.changed()).await;
        }
    }

    /// Waits until a node has replayed all recorded lines.
    async fn catch_up(&self, conn: &Conn<Read>, caught: &Caught) -> Result<(), ReplayError> {
        if caught.nodes().contains(conn.node()) {
            return Ok(());
        }
        while position::replayed(conn).await.map_err(ReplayError::Position)? < caught.position {
            if Instant::now() >= caught.deadline {
                return Err(ReplayError::NotCaughtUp { node: conn.node().to_owned(), waited: PATIENCE });
            }
            sleep(PAUSE).await;
        }
        caught.nodes().insert(conn.node().to_owned());
        Ok(())
    }
}
