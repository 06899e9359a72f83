//! The results of a replay.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::access::Failed;
use super::tally::Tally;
use crate::CheckoutError;
use crate::payments::{self, AccountId, Balance};

/// The replayed lines, the speed, and the nodes that were asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Lines of the ledger, without the header.
    pub lines: u64,
    /// Accounts in the ledger.
    pub accounts: u64,
    /// Lines that this run recorded.
    pub recorded: u64,
    /// Lines that were there already, with the same content.
    pub already_there: u64,
    /// Duration of the recording, with the comparison after each line.
    pub seconds: f64,
    /// Lines for each of these seconds.
    pub lines_per_second: f64,
    /// Balances that were read, by the node that served them.
    pub reads: BTreeMap<String, u64>,
    /// `true` if each account had a session, so that its reads see its writes.
    pub with_tokens: bool,
    /// Balances of a replica that lacked a line that was recorded before the read.
    ///
    /// The primary had the right balance. With tokens, the first one ends the replay as a difference.
    pub stale_reads: u64,
    /// Balances after a line that replicas served.
    pub replica_reads: u64,
    /// Balances after a line that the primary served.
    pub primary_reads: u64,
    /// Balances after a line whose read waited longer than 5 ms.
    ///
    /// A wait is the time that [`Conn::causal_wait`](crate::Conn::causal_wait) reports. It is zero if the first node
    /// that was asked had the line.
    pub waited_reads: u64,
    /// Median of the waits of all balances after a line.
    pub wait_p50_ms: f64,
    /// 99th percentile of these waits.
    pub wait_p99_ms: f64,
    /// The longest of these waits.
    pub wait_max_ms: f64,
    /// Accounts whose last balance was compared at the end.
    pub compared_at_end: u64,
    /// `true` if replicas were asked at the end.
    ///
    /// Otherwise none is configured and the primary was asked.
    pub compared_on_replicas: bool,
    /// Number of differences. A replay ends at the first.
    pub differences: u64,
    /// The first difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_difference: Option<Difference>,
}

impl Report {
    pub(super) fn took(&mut self, time: Duration) {
        self.seconds = round(time.as_secs_f64(), 1000.0);
        let lines = (self.recorded + self.already_there) as f64;
        self.lines_per_second = round(lines / time.as_secs_f64().max(1e-6), 10.0);
    }

    pub(super) fn counted(&mut self, tally: &Tally) {
        self.reads = tally.by_node.clone();
        (self.stale_reads, self.replica_reads, self.primary_reads) =
            (tally.stale, tally.by_replicas, tally.by_primary);
        let waits = tally.waits();
        self.waited_reads = waits.waited;
        [self.wait_p50_ms, self.wait_p99_ms, self.wait_max_ms] =
            [waits.p50, waits.p99, waits.max].map(|wait| round(wait.as_secs_f64() * 1000.0, 100.0));
    }

    pub(super) fn differs(&mut self, difference: Option<Difference>) {
        self.differences = u64::from(difference.is_some());
        self.first_difference = difference;
    }
}

fn round(number: f64, steps: f64) -> f64 {
    (number * steps).round() / steps
}

/// A balance in the database that is not the one in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Difference {
    /// The line in the file.
    pub line: u64,
    /// The account.
    pub account: AccountId,
    /// The balance in the ledger.
    pub expected: Balance,
    /// The balance in the database.
    pub found: Balance,
    /// The time at which it was found.
    pub at: DifferenceAt,
    /// The node that was asked.
    pub node: String,
}

/// The stage at which a difference was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceAt {
    /// Directly after the line was recorded.
    Recording,
    /// Directly after the line was recorded, on a replica that lacked it.
    ///
    /// The primary had it.
    StaleRead,
    /// At the end, when the last balances were compared.
    End,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, account, expected, found, node, .. } = self;
        let when = match self.at {
            DifferenceAt::Recording => "after this line",
            DifferenceAt::StaleRead => "after this line (a stale read: the primary has it)",
            DifferenceAt::End => "at the end",
        };
        write!(f, "line {line}: account {account} has {found} on {node} {when}, and {expected} in the ledger")
    }
}

/// The reasons why a replay could not finish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// A line could not be recorded, or its balance could not be read.
    #[error("line {line}: {source}")]
    Line {
        /// The line in the file.
        line: u64,
        /// The cause.
        source: payments::Error,
    },
    /// No connection was available for a line.
    #[error("line {line}: {source}")]
    Checkout {
        /// The line in the file, or its account's last one for the last balances.
        line: u64,
        /// The cause.
        source: CheckoutError,
    },
    /// Replicas are configured, but none of them served a read at the end.
    #[error("no replica served a read: `pointsman status` shows how they are: {0}")]
    NoReplica(CheckoutError),
    /// No replica replayed the recorded lines in time.
    #[error(
        "no replica had replayed what was recorded within {waited:?}: see whether its replay is paused or delayed"
    )]
    NotCaughtUp {
        /// The time waited.
        waited: Duration,
    },
}

impl ReplayError {
    pub(super) fn of(line: u64, failed: Failed) -> Self {
        match failed {
            Failed::Checkout(source) => Self::Checkout { line, source },
            Failed::Lost(source) | Failed::Other(source) => Self::Line { line, source },
        }
    }
}
