//! The rows of settlements and their parts.

use chrono::{DateTime, Utc};
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::prelude::*;
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::Text;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

use crate::payments::schema::settlements;
use crate::payments::status::{UnknownName, named};
use crate::payments::{Actor, Asset, Balance};

named! {
    /// The status of a settlement. It only moves forward.
    SettlementStatus = "settlement status" {
        /// Summed, and not paid out yet.
        Open = "open",
        /// Paid out. Final.
        Paid = "paid",
    }
}

/// A settlement as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Insertable, Serialize)]
#[diesel(table_name = settlements, check_for_backend(diesel::pg::Pg))]
pub struct Settlement {
    /// Its id; ids sort by the time they were made.
    pub id: Uuid,
    /// The asset.
    pub asset: Asset,
    /// Deposits less withdrawals; negative if the withdrawals were larger.
    pub total: Balance,
    /// Number of transactions.
    pub transaction_count: i64,
    /// The status.
    pub status: SettlementStatus,
    /// The time of the first transaction.
    pub period_start: DateTime<Utc>,
    /// The time of the last transaction.
    pub period_end: DateTime<Utc>,
    /// The time of the settlement.
    pub created_at: DateTime<Utc>,
    /// The time of the payout.
    pub paid_at: Option<DateTime<Utc>>,
}

/// A request for a settlement.
///
/// ```
/// use pointsman::payments::Settling;
///
/// let settling = Settling::new("EUR".parse()?, "nightly-job".parse()?).at_most(1000);
/// assert_eq!(settling.limit, 1000);
/// # Ok::<(), pointsman::payments::CodeError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it is carried out by `SettlementRepository::settle`"]
pub struct Settling {
    /// The asset.
    pub asset: Asset,
    /// The latest time to include; all times by default.
    pub up_to: Option<DateTime<Utc>>,
    /// Maximum transactions.
    pub limit: u32,
    /// The actor, for the audit log.
    pub actor: Actor,
}

impl Settling {
    /// Enough for most days, and few enough to hold locks for less than a second.
    pub const DEFAULT_LIMIT: u32 = 10_000;

    /// Requests the settlement of an asset's transactions.
    ///
    /// It takes [the oldest first](Self::DEFAULT_LIMIT).
    pub fn new(asset: Asset, actor: Actor) -> Self {
        Self { asset, up_to: None, limit: Self::DEFAULT_LIMIT, actor }
    }

    /// Settles only transactions up to this time.
    pub fn up_to(self, time: DateTime<Utc>) -> Self {
        Self { up_to: Some(time), ..self }
    }

    /// Settles at most this many transactions.
    pub fn at_most(self, limit: u32) -> Self {
        Self { limit, ..self }
    }
}
