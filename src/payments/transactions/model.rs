//! The rows of transactions and their parts.

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
    /// The account.
    pub account: AccountId,
    /// The amount.
    pub amount: Amount,
    /// The asset.
    pub asset: Asset,
    /// The direction.
    pub kind: Kind,
    /// The status.
    pub status: Status,
    /// The provider.
    pub provider: Provider,
    /// The provider's id for it.
    pub provider_id: ProviderId,
    /// Further data from the provider: a JSON object.
    pub metadata: Option<Value>,
    /// The time of the movement, according to the provider.
    pub occurred_at: DateTime<Utc>,
    /// The time it was recorded.
    pub created_at: DateTime<Utc>,
    /// The time of the last change.
    pub updated_at: DateTime<Utc>,
    /// The settlement that summed it.
    pub settlement_id: Option<Uuid>,
}

impl Transaction {
    /// Returns `true` if it describes the same movement.
    ///
    /// The provider's id, account, amount, asset and direction are equal.
    ///
    /// The status and the times are left out, because they differ when a provider reports progress.
    pub(super) fn is_told_by(&self, new: &NewTransaction) -> bool {
        self.provider == new.provider
            && self.provider_id == new.provider_id
            && self.account == new.account
            && self.amount == new.amount
            && self.asset == new.asset
            && self.kind == new.kind
    }
}

/// A transaction to record.
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
#[must_use = "it is recorded by `TransactionRepository::record_transaction`"]
pub struct NewTransaction {
    /// The provider.
    pub provider: Provider,
    /// The provider's id for it.
    pub provider_id: ProviderId,
    /// The account.
    pub account: AccountId,
    /// The direction.
    pub kind: Kind,
    /// The amount.
    pub amount: Amount,
    /// The asset.
    pub asset: Asset,
    /// The status; pending by default.
    pub status: Status,
    /// The time of the movement, or that of its recording if it is not known.
    pub occurred_at: Option<DateTime<Utc>>,
    /// Further data from the provider: a JSON object.
    pub metadata: Option<Map<String, Value>>,
}

impl NewTransaction {
    /// Creates one that is pending and happens now.
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

    /// Sets the status.
    pub fn with_status(self, status: Status) -> Self {
        Self { status, ..self }
    }

    /// Sets the time of the movement.
    pub fn with_occurred_at(self, time: DateTime<Utc>) -> Self {
        Self { occurred_at: Some(time), ..self }
    }

    /// Adds further data from the provider.
    pub fn with_metadata(self, metadata: Map<String, Value>) -> Self {
        Self { metadata: Some(metadata), ..self }
    }
}

/// A provider's message about a transaction.
///
/// Its key is the same on repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it is recorded by `TransactionRepository::record_callback`"]
pub struct NewCallback {
    /// The message's key.
    pub key: IdempotencyKey,
    /// The transaction.
    pub transaction: NewTransaction,
}

/// The outcome of a callback.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it tells whether the callback was the first of its kind"]
pub enum Recorded {
    /// It was the first with its key, and this was stored.
    Created(Transaction),
    /// It reported a later status of a known transaction, which has this status now.
    Advanced(Transaction),
    /// It reported nothing new of this transaction.
    Duplicate(Transaction),
}

impl Recorded {
    /// Returns the transaction of any outcome.
    pub fn transaction(&self) -> &Transaction {
        match self {
            Self::Created(transaction) | Self::Advanced(transaction) | Self::Duplicate(transaction) => {
                transaction
            }
        }
    }

    /// Returns the transaction of any outcome, by value.
    pub fn into_transaction(self) -> Transaction {
        match self {
            Self::Created(transaction) | Self::Advanced(transaction) | Self::Duplicate(transaction) => {
                transaction
            }
        }
    }

    /// Returns `true` if it was the first about its transaction.
    pub fn is_created(&self) -> bool {
        matches!(self, Self::Created(_))
    }
}

/// A filter on transactions: all given conditions must hold.
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

/// The completed transactions of one day, in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DayTotal {
    /// The day.
    pub day: NaiveDate,
    /// The sum of the deposits.
    pub deposits: Balance,
    /// The sum of the withdrawals.
    pub withdrawals: Balance,
    /// Number of transactions.
    pub count: i64,
}
