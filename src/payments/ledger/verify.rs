//! The last balances, from the replicas.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::access::{Access, Failed};
use super::file::Entry;
use super::first::First;
use super::report::{Difference, DifferenceAt, ReplayError};
use super::run::{Replay, difference};
use crate::config::Fallback;
use crate::payments::TransactionRepository;
use crate::{CausalError, CheckoutError, Conn, ReadOptions, Session, Write};

/// Time limit of the wait for replicas.
const LIMIT: Duration = Duration::from_secs(30);

impl Replay<'_> {
    /// Compares the last balance of each account on replicas.
    ///
    /// If there is none, it asks the primary.
    pub(super) async fn verify(&self, workers: usize) -> Result<Option<Difference>, ReplayError> {
        let last: Vec<&Entry> = self.ledger.last().collect();
        let access = Access::Session(self.session_at_end(&last).await?);
        let deadline = Instant::now() + LIMIT;
        let first = First::new();
        let shares = last.chunks(last.len().div_ceil(workers).max(1));
        join_all(shares.map(|share| self.verify_share(share, &access, deadline, &first))).await;
        first.into_inner().transpose()
    }

    /// Returns a session that has seen everything that the primary has written.
    async fn session_at_end(&self, last: &[&Entry]) -> Result<Session, ReplayError> {
        let session = self.set.session();
        if let Some(entry) = last.first() {
            let see = async |tx: &mut Conn<Write>| {
                tx.balance(&entry.account, &self.settings.asset).await.map_err(Failed::Other)
            };
            session.run_write(see).await.map_err(|failed| ReplayError::of(entry.line, failed))?;
        }
        Ok(session)
    }

    async fn verify_share(
        &self,
        share: &[&Entry],
        access: &Access<'_>,
        deadline: Instant,
        first: &First<Result<Difference, ReplayError>>,
    ) {
        for entry in share.iter().filter(|entry| !first.is_before(entry.line)) {
            match self.verify_last(entry, access, deadline).await {
                Ok(None) => {}
                Ok(Some(difference)) => first.put(entry.line, Ok(difference)),
                Err(error) => first.put(entry.line, Err(error)),
            }
        }
    }

    async fn verify_last(
        &self,
        entry: &Entry,
        access: &Access<'_>,
        deadline: Instant,
    ) -> Result<Option<Difference>, ReplayError> {
        // In a set of one node, this node serves nevertheless.
        let left = deadline.saturating_duration_since(Instant::now());
        let options = ReadOptions::new().fallback(Fallback::Never).within(left).causal_wait(left);
        let read = self.read(entry, access, &options).await.map_err(|error| match error {
            ReplayError::Checkout {
                source: CheckoutError::Causal(CausalError::NotCaughtUp { .. }), ..
            } => ReplayError::NotCaughtUp { waited: LIMIT },
            ReplayError::Checkout { source: source @ CheckoutError::NoNode { .. }, .. } => {
                ReplayError::NoReplica(source)
            }
            error => error,
        })?;
        self.tally().count(&read);
        let is_right = read.balance == entry.balance_after;
        Ok((!is_right).then(|| difference(entry, read, DifferenceAt::End)))
    }
}
