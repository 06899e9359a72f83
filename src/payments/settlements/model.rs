//! The rows of settlements and what they are made of.

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
    /// How far a settlement has come. It only goes forward.
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
    /// What was settled.
    pub asset: Asset,
    /// Deposits less withdrawals; negative where more went out than came in.
    pub total: Balance,
    /// How many transactions these were.
    pub transaction_count: i64,
    /// How far it has come.
    pub status: SettlementStatus,
    /// When the first of the transactions happened.
    pub period_start: DateTime<Utc>,
    /// When the last of the transactions happened.
    pub period_end: DateTime<Utc>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was paid out.
    pub paid_at: Option<DateTime<Utc>>,
}

/// What to settle.
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
    /// Of what.
    pub asset: Asset,
    /// What happened at this time or earlier; all, unless it is said.
    pub up_to: Option<DateTime<Utc>>,
    /// How many transactions at most.
    pub limit: u32,
    /// Who settles, for the audit log.
    pub actor: Actor,
}

impl Settling {
    /// Enough for most days, and few enough that their locks are held for less than a second.
    pub const DEFAULT_LIMIT: u32 = 10_000;

    /// Settles what there is of an asset, [the oldest first](Self::DEFAULT_LIMIT).
    pub fn new(asset: Asset, actor: Actor) -> Self {
        Self { asset, up_to: None, limit: Self::DEFAULT_LIMIT, actor }
    }

    /// Settles only what happened at this time or earlier.
    pub fn up_to(self, time: DateTime<Utc>) -> Self {
        Self { up_to: Some(time), ..self }
    }

    /// Settles at most so many transactions.
    pub fn at_most(self, limit: u32) -> Self {
        Self { limit, ..self }
    }
}
