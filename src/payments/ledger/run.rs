//! Recording a ledger, line by line, account by account.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use tokio::time::Instant;

use super::file::{Entry, Ledger};
use super::first::First;
use super::report::{Difference, DifferenceAt, ReplayError, Report};
use crate::payments::{
    self, Asset, Balance, Conflict, NewTransaction, Provider, Status, Transaction, TransactionRepository,
};
use crate::{Conn, ReplicaSet, Write};

/// Attempts for a line whose connection is lost.
///
/// Each attempt waits for a primary by itself.
const TRIES: u32 = 5;

/// The settings of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The provider under whose name the lines are recorded.
    ///
    /// With another name, the same lines are new transactions.
    pub provider: Provider,
    /// The asset of the amounts; a ledger does not have it.
    pub asset: Asset,
    /// Number of accounts that are worked on at once.
    pub concurrency: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let valid = "these are valid names";
        Self {
            provider: Provider::new("ledger").expect(valid),
            asset: Asset::new("CZK").expect(valid),
            // Fewer than a pool's default connections, so none waits for one.
            concurrency: 8,
        }
    }
}

/// A ledger on its way into a replica set.
pub struct Replay<'a> {
    pub(super) set: &'a ReplicaSet,
    pub(super) ledger: &'a Ledger,
    pub(super) settings: Settings,
    /// Called for each line that is done.
    pub(super) on_line: &'a (dyn Fn() + Send + Sync),
    pub(super) reads: Mutex<BTreeMap<String, u64>>,
    recorded: AtomicU64,
    already_there: AtomicU64,
}

impl fmt::Debug for Replay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<'a> Replay<'a> {
    /// Prepares a replay; `on_line` is called for each line that is done.
    pub fn new(
        set: &'a ReplicaSet,
        ledger: &'a Ledger,
        settings: Settings,
        on_line: &'a (dyn Fn() + Send + Sync),
    ) -> Self {
        let (recorded, already_there) = Default::default();
        Self { set, ledger, settings, on_line, reads: Mutex::default(), recorded, already_there }
    }

    /// Records every line and compares every balance, and then the last ones on the replicas.
    ///
    /// It ends at the first difference, which is in the report; all lines before it were recorded.
    ///
    /// # Errors
    ///
    /// Fails if the database cannot be used, or a stored line with that id has other content.
    ///
    /// # Cancel safety
    ///
    /// Recorded lines stay, and another run continues after them.
    pub async fn run(&self) -> Result<Report, ReplayError> {
        let began = Instant::now();
        let first = First::new();
        let workers = self.settings.concurrency.clamp(1, 256);
        join_all(self.shares(workers).into_iter().map(|share| self.work(share, &first))).await;
        let time = began.elapsed();
        let mut difference = first.into_inner().transpose()?;
        let compared = match difference {
            Some(_) => 0,
            None => {
                difference = self.verify(workers).await?;
                self.ledger.accounts() as u64
            }
        };
        let mut report = Report {
            lines: self.ledger.entries().len() as u64,
            accounts: self.ledger.accounts() as u64,
            recorded: self.recorded.load(Ordering::Relaxed),
            already_there: self.already_there.load(Ordering::Relaxed),
            seconds: 0.0,
            lines_per_second: 0.0,
            reads: self.reads().clone(),
            compared_at_end: compared,
            compared_on_replicas: compared > 0 && self.has_replicas(),
            differences: 0,
            first_difference: None,
        };
        report.took(time);
        report.differs(difference);
        Ok(report)
    }

    /// Distributes the accounts; each account's lines stay in the order of the file.
    fn shares(&self, workers: usize) -> Vec<Vec<&'a Entry>> {
        let mut shares = vec![Vec::new(); workers];
        let mut dealt = HashMap::new();
        for entry in self.ledger.entries() {
            let next = dealt.len() % workers;
            shares[*dealt.entry(&entry.account).or_insert(next)].push(entry);
        }
        shares
    }

    async fn work(&self, share: Vec<&Entry>, first: &First<Result<Difference, ReplayError>>) {
        for entry in share {
            if first.is_before(entry.line) {
                return;
            }
            match self.record(entry).await {
                Ok(None) => (self.on_line)(),
                Ok(Some(difference)) => return first.put(entry.line, Ok(difference)),
                Err(error) => return first.put(entry.line, Err(error)),
            }
        }
    }

    /// Records one line, and compares the balance if this run was the one that recorded it.
    async fn record(&self, entry: &Entry) -> Result<Option<Difference>, ReplayError> {
        let new = self.transaction(entry);
        let mut tried = 0;
        // A line that is stored now, but lost its connection when it was recorded before, is ours as well.
        let mut is_ours = false;
        loop {
            tried += 1;
            let checkout = |source| ReplayError::Checkout { line: entry.line, source };
            let conn = self.set.write().await.map_err(checkout)?;
            let outcome = async {
                is_ours |= self.record_once(&conn, &new).await?;
                if !is_ours {
                    return Ok(None);
                }
                conn.balance(&entry.account, &self.settings.asset).await.map(Some)
            }
            .await;
            match outcome {
                Ok(None) => {
                    self.already_there.fetch_add(1, Ordering::Relaxed);
                    return Ok(None);
                }
                Ok(Some(balance)) => {
                    self.recorded.fetch_add(1, Ordering::Relaxed);
                    return Ok(self.compare(entry, balance, DifferenceAt::Recording, conn.node()));
                }
                Err(error) if tried < TRIES && conn.is_closed() => {
                    tracing::warn!(line = entry.line, node = conn.node(), %error, "a line is recorded again");
                    is_ours = true;
                }
                Err(source) => return Err(ReplayError::Line { line: entry.line, source }),
            }
        }
    }

    /// Records a transaction, unless an equal one is stored; returns `true` if it did.
    async fn record_once(&self, conn: &Conn<Write>, new: &NewTransaction) -> Result<bool, payments::Error> {
        let taken = match conn.record_transaction(new).await {
            Ok(_) => return Ok(true),
            Err(error @ payments::Error::Conflict(Conflict::ProviderId { .. })) => error,
            Err(error) => return Err(error),
        };
        let there = conn.find_transaction_by_provider_id(&new.provider, &new.provider_id).await?;
        if there.is_some_and(|there| is_same(&there, new)) { Ok(false) } else { Err(taken) }
    }

    fn transaction(&self, entry: &Entry) -> NewTransaction {
        NewTransaction::new(
            self.settings.provider.clone(),
            entry.id.clone(),
            entry.account.clone(),
            entry.kind,
            entry.amount.clone(),
            self.settings.asset.clone(),
        )
        .with_status(Status::Completed)
        .with_occurred_at(entry.occurred_at())
    }

    /// Counts a read, and compares its result.
    pub(super) fn compare(
        &self,
        entry: &Entry,
        found: Balance,
        at: DifferenceAt,
        node: &str,
    ) -> Option<Difference> {
        *self.reads().entry(node.to_owned()).or_default() += 1;
        (found != entry.balance_after).then(|| Difference {
            line: entry.line,
            account: entry.account.clone(),
            expected: entry.balance_after.clone(),
            found,
            at,
            node: node.to_owned(),
        })
    }

    /// Returns `true` if there are nodes besides the primary.
    pub(super) fn has_replicas(&self) -> bool {
        self.set.config().nodes().len() > 1
    }

    fn reads(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.reads.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Returns `true` if a stored line equals the one in the ledger.
fn is_same(there: &Transaction, new: &NewTransaction) -> bool {
    there.account == new.account
        && there.kind == new.kind
        && there.amount == new.amount
        && there.asset == new.asset
        && there.status == new.status
        && Some(there.occurred_at) == new.occurred_at
}
