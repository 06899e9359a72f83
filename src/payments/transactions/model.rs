//! The rows of transactions and what they are made of.

use chrono::{DateTime, NaiveDate, Utc};
use diesel::prelude::*;
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::payments::schema::transactions;
use crate::payments::{
    AccountId, Amount, Asset, Balance, IdempotencyKey, Kind, Provider, ProviderId, Status,
};

/// A transaction as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Serialize)]
#[diesel(table_name = transactions, check_for_backend(diesel::pg::Pg))]
pub struct Transaction {
    /// Its id, made when it was recorded; ids sort by that time.
    pub id: Uuid,
    /// Whose it is.
    pub account: AccountId,
    /// How much.
    pub amount: Amount,
    /// Of what.
    pub asset: Asset,
    /// In or out.
    pub kind: Kind,
    /// How far it has come.
    pub status: Status,
    /// Who told us of it.
    pub provider: Provider,
    /// What the provider calls it.
    pub provider_id: ProviderId,
    /// What else the provider told: a JSON object.
    pub metadata: Option<Value>,
    /// When it happened, as the provider says.
    pub occurred_at: DateTime<Utc>,
    /// When it was recorded.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// The settlement that summed it.
    pub settlement_id: Option<Uuid>,
}

impl Transaction {
    /// Whether it tells of the same movement as another one: what it was called, whose, how much of what, which way.
    ///
    /// The status and the times are left out, because they differ where a provider tells of progress.
    pub(super) fn is_told_by(&self, new: &NewTransaction) -> bool {
        self.provider == new.provider
            && self.provider_id == new.provider_id
            && self.account == new.account
            && self.amount == new.amount
            && self.asset == new.asset
            && self.kind == new.kind
    }
}

/// A transaction that is to be recorded.
///
/// ```
/// use pointsman::payments::{Kind, NewTransaction, Status};
///
/// let (provider, id) = ("ledger".parse()?, "171812".parse()?);
/// let new = NewTransaction::new(provider, id, "576".parse()?, Kind::Deposit, "900.00".parse()?, "CZK".parse()?)
///     .with_status(Status::Completed);
/// assert_eq!(new.amount.to_string(), "900");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[must_use = "it is recorded by `TransactionRepository::record`"]
pub struct NewTransaction {
    /// Who told us of it.
    pub provider: Provider,
    /// What the provider calls it.
    pub provider_id: ProviderId,
    /// Whose it is.
    pub account: AccountId,
    /// In or out.
    pub kind: Kind,
    /// How much.
    pub amount: Amount,
    /// Of what.
    pub asset: Asset,
    /// How far it has come already; pending, unless it is said.
    pub status: Status,
    /// When it happened, if the provider says so; otherwise the time of recording is taken.
    pub occurred_at: Option<DateTime<Utc>>,
    /// What else the provider told: a JSON object.
    pub metadata: Option<Map<String, Value>>,
}

impl NewTransaction {
    /// Makes one that is pending and happens now.
    pub fn new(
        provider: Provider,
        provider_id: ProviderId,
        account: AccountId,
        kind: Kind,
        amount: Amount,
        asset: Asset,
    ) -> Self {
        let status = Status::Pending;
        Self {
            provider,
            provider_id,
            account,
            kind,
            amount,
            asset,
            status,
            occurred_at: None,
            metadata: None,
        }
    }

    /// Says how far it has come already.
    pub fn with_status(self, status: Status) -> Self {
        Self { status, ..self }
    }

    /// Says when it happened.
    pub fn with_occurred_at(self, time: DateTime<Utc>) -> Self {
        Self { occurred_at: Some(time), ..self }
    }

    /// Adds what else the provider told.
    pub fn with_metadata(self, metadata: Map<String, Value>) -> Self {
        Self { metadata: Some(metadata), ..self }
    }
}

/// A message of a provider about a transaction, named by a key that is the same when the message is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it is recorded by `TransactionRepository::record_callback`"]
pub struct NewCallback {
    /// The message's name.
    pub key: IdempotencyKey,
    /// What the message tells of.
    pub transaction: NewTransaction,
}

/// What became of a callback.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it tells whether the callback was the first of its kind"]
pub enum Recorded {
    /// It was the first of its kind, and this was stored.
    Created(Transaction),
    /// It was known already, with this transaction, and nothing was stored.
    Duplicate(Transaction),
}

impl Recorded {
    /// Lends the transaction, whichever way it got there.
    pub fn transaction(&self) -> &Transaction {
        match self {
            Self::Created(transaction) | Self::Duplicate(transaction) => transaction,
        }
    }

    /// Takes the transaction out, whichever way it got there.
    pub fn into_transaction(self) -> Transaction {
        match self {
            Self::Created(transaction) | Self::Duplicate(transaction) => transaction,
        }
    }

    /// Whether it was the first of its kind.
    pub fn is_created(&self) -> bool {
        matches!(self, Self::Created(_))
    }
}

/// Which transactions to list: those that have all that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionFilter {
    /// Those of one account.
    pub account: Option<AccountId>,
    /// Those of one asset.
    pub asset: Option<Asset>,
    /// Those in one direction.
    pub kind: Option<Kind>,
    /// Those of one status.
    pub status: Option<Status>,
    /// Those that one settlement summed.
    pub settlement: Option<Uuid>,
    /// Those that happened at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Those that happened before this time.
    pub before: Option<DateTime<Utc>>,
}

/// What was completed on one day, in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DayTotal {
    /// The day.
    pub day: NaiveDate,
    /// The sum of what came in.
    pub deposits: Balance,
    /// The sum of what went out.
    pub withdrawals: Balance,
    /// How many transactions these were.
    pub count: i64,
}
