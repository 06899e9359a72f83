//! The results of a replay.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::CheckoutError;
use crate::payments::{self, AccountId, Balance};

/// The replayed lines, the speed, and the nodes that were asked.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
    /// At the end, when the last balances were compared.
    End,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, account, expected, found, node, .. } = self;
        let when = match self.at {
            DifferenceAt::Recording => "after this line",
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
        /// The line in the file, or its account's last line while the last balances are read.
        line: u64,
        /// The cause.
        source: CheckoutError,
    },
    /// The primary did not report its WAL position.
    #[error("the primary did not say how far it has written: {0}")]
    Position(diesel::result::Error),
    /// Replicas are configured, but none of them served a read.
    #[error("no replica served a read within {waited:?}: `pointsman status` shows how they are")]
    NoReplica {
        /// The time waited.
        waited: Duration,
    },
    /// A replica serves reads, but did not replay the recorded lines.
    #[error(
        "{node} did not replay what was recorded within {waited:?}: see whether its replay is paused or delayed"
    )]
    NotCaughtUp {
        /// The replica.
        node: String,
        /// The time waited.
        waited: Duration,
    },
}
