//! Recording a ledger, line by line, account by account.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use tokio::time::Instant;

use super::first::First;
use super::ledger::{Entry, Ledger};
use super::report::{Difference, DifferenceAt, ReplayError, Report};
use crate::ReplicaSet;
use crate::payments::{
    self, Asset, Balance, IdempotencyKey, NewCallback, NewTransaction, Provider, Recorded, Status,
    TransactionRepository,
};

/// How often a line is tried whose connection is lost. Each try waits for a primary by itself.
const TRIES: u32 = 5;

/// How a ledger is replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// In whose name the lines are recorded. Lines of another name are other transactions of the same accounts.
    pub provider: Provider,
    /// What the amounts are amounts of; a ledger does not say.
    pub asset: Asset,
    /// How many accounts are worked on at once.
    pub concurrency: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let valid = "these are valid names";
        Self {
            provider: Provider::new("ledger").expect(valid),
            asset: Asset::new("CZK").expect(valid),
            // Fewer than a pool has connections by default, so none waits for one.
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
    /// It ends at the first difference, which the report has; all lines before it were recorded.
    ///
    /// # Errors
    ///
    /// Where the database cannot be used, or a line of that id is there with another content.
    ///
    /// # Cancel safety
    ///
    /// Lines that were recorded stay, and a further run goes on behind them.
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

    /// Deals the accounts out; what an account has, stays in the order of the file.
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
        let callback = self.callback(entry);
        let mut tried = 0;
        // A line that is there now, but whose connection was lost when it was recorded before, is ours as well.
        let mut is_ours = false;
        loop {
            tried += 1;
            let checkout = |source| ReplayError::Checkout { line: entry.line, source };
            let mut conn = self.set.write().await.map_err(checkout)?;
            let outcome = async {
                let recorded = conn.record_callback(&callback).await?;
                is_ours |= recorded.is_created();
                let balance = match &recorded {
                    Recorded::Duplicate(_) if !is_ours => None,
                    _ => Some(conn.balance(&entry.account, &self.settings.asset).await?),
                };
                Ok(balance)
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
                Err(source) if tried < TRIES && (conn.is_lost() || is_open(&source)) => {
                    tracing::warn!(line = entry.line, node = conn.node(), error = %source, "a line is recorded again");
                    is_ours = true;
                }
                Err(source) => return Err(ReplayError::Line { line: entry.line, source }),
            }
        }
    }

    fn callback(&self, entry: &Entry) -> NewCallback {
        // A line is told of once, so its id also names the message.
        let key = IdempotencyKey::new(entry.id.as_str()).expect("a provider's id and a key have one form");
        let transaction = NewTransaction::new(
            self.settings.provider.clone(),
            entry.id.clone(),
            entry.account.clone(),
            entry.kind,
            entry.amount.clone(),
            self.settings.asset.clone(),
        )
        .with_status(Status::Completed)
        .with_occurred_at(entry.occurred_at());
        NewCallback { key, transaction }
    }

    /// Counts a read, and compares what it gave.
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

    /// Whether there is more than the primary.
    pub(super) fn has_replicas(&self) -> bool {
        self.set.config().nodes().len() > 1
    }

    fn reads(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.reads.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Whether a line may have been recorded all the same.
fn is_open(error: &payments::Error) -> bool {
    matches!(error, payments::Error::OutcomeUnknown(_))
}
