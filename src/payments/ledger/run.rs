//! Recording a ledger, line by line, account by account.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use tokio::time::Instant;

use super::access::{Access, Failed, ReadBack};
use super::file::{Entry, Ledger};
use super::first::First;
use super::report::{Difference, DifferenceAt, ReplayError, Report};
use super::tally::Tally;
use crate::payments::{Asset, NewTransaction, Provider, Status, TransactionRepository};
use crate::{Conn, ReadOptions, ReplicaSet, Role, Write};

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
    /// `true` if each account is replayed through a separate session.
    ///
    /// Without sessions, a balance may be stale. The replay then counts stale balances instead of ending at the first.
    pub with_tokens: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let valid = "these are valid names";
        Self {
            provider: Provider::new("ledger").expect(valid),
            asset: Asset::new("CZK").expect(valid),
            // Fewer than a pool's default connections, so none waits for one.
            concurrency: 8,
            with_tokens: true,
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
    tally: Mutex<Tally>,
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
        Self { set, ledger, settings, on_line, tally: Mutex::default(), recorded, already_there }
    }

    /// Records every line, and compares every balance.
    ///
    /// At the end, it compares the last balances of all accounts on the replicas.
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
            with_tokens: self.settings.with_tokens,
            compared_at_end: compared,
            compared_on_replicas: compared > 0 && self.has_replicas(),
            ..Report::default()
        };
        report.counted(&self.tally());
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
        let mut accounts = HashMap::new();
        for entry in share {
            if first.is_before(entry.line) {
                return;
            }
            let new = || Access::new(self.set, self.settings.with_tokens);
            let access = accounts.entry(&entry.account).or_insert_with(new);
            match self.record(entry, access).await {
                Ok(None) => (self.on_line)(),
                Ok(Some(difference)) => return first.put(entry.line, Ok(difference)),
                Err(error) => return first.put(entry.line, Err(error)),
            }
        }
    }

    /// Records one line, and compares the balance if this run recorded it.
    async fn record(&self, entry: &Entry, access: &Access<'_>) -> Result<Option<Difference>, ReplayError> {
        let new = self.transaction(entry);
        let mut tried = 0;
        // A line that is stored now, but lost its connection when it was recorded before, is ours as well.
        let mut is_ours = false;
        loop {
            tried += 1;
            match access.record(&new).await {
                Ok(is_new) => {
                    is_ours |= is_new;
                    break;
                }
                Err(Failed::Lost(error)) if tried < TRIES => {
                    tracing::warn!(line = entry.line, %error, "a line is recorded again");
                    is_ours = true;
                }
                Err(failed) => return Err(ReplayError::of(entry.line, failed)),
            }
        }
        if !is_ours {
            self.already_there.fetch_add(1, Ordering::Relaxed);
            return Ok(None);
        }
        self.recorded.fetch_add(1, Ordering::Relaxed);
        let read = self.read(entry, access, &ReadOptions::new()).await?;
        self.tally().count_after_write(&read);
        if read.balance == entry.balance_after {
            return Ok(None);
        }
        self.judge(entry, read).await
    }

    /// Reads the balance of a line's account.
    pub(super) async fn read(
        &self,
        entry: &Entry,
        access: &Access<'_>,
        options: &ReadOptions,
    ) -> Result<ReadBack, ReplayError> {
        let read = access.balance(options, &entry.account, &self.settings.asset).await;
        read.map_err(|failed| ReplayError::of(entry.line, failed))
    }

    /// Finds out if a balance is wrong, or only stale.
    ///
    /// It is stale if the primary has the right one. Without tokens, that is no difference.
    async fn judge(&self, entry: &Entry, read: ReadBack) -> Result<Option<Difference>, ReplayError> {
        if read.role != Role::Replica {
            return Ok(Some(difference(entry, read, DifferenceAt::Recording)));
        }
        let ask = async |tx: &mut Conn<Write>| {
            let balance = tx.balance(&entry.account, &self.settings.asset).await.map_err(Failed::Other)?;
            Ok::<_, Failed>((balance, tx.node().to_owned()))
        };
        let asked = self.set.run_write(ask).await;
        let (balance, node) = asked.map_err(|failed| ReplayError::of(entry.line, failed))?;
        if balance != entry.balance_after {
            let at_primary = ReadBack { balance, node, ..read };
            return Ok(Some(difference(entry, at_primary, DifferenceAt::Recording)));
        }
        self.tally().stale += 1;
        let is_failure = self.settings.with_tokens;
        Ok(is_failure.then(|| difference(entry, read, DifferenceAt::StaleRead)))
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

    /// Returns `true` if there are nodes besides the primary.
    pub(super) fn has_replicas(&self) -> bool {
        self.set.config().nodes().len() > 1
    }

    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn difference(entry: &Entry, read: ReadBack, at: DifferenceAt) -> Difference {
    Difference {
        line: entry.line,
        account: entry.account.clone(),
        expected: entry.balance_after.clone(),
        found: read.balance,
        at,
        node: read.node,
    }
}
