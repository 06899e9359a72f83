//! Balances of accounts, and their movements by day.

use axum::extract::State;
use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use super::Service;
use super::error::ApiError;
use super::extract::{InSession, Params, Segment, value};
use super::served::Served;
use super::transactions::known_asset;
use crate::payments::{AccountId, Asset, Balance, DayTotal, TransactionRepository};

/// Maximum days that one request may sum: some years, and no scan of everything.
const MAX_DAYS: i64 = 3660;

#[derive(Serialize)]
pub(super) struct AccountBalance {
    account: AccountId,
    asset: Asset,
    balance: Balance,
}

#[derive(Serialize)]
pub(super) struct AccountBalances {
    account: AccountId,
    balances: Vec<AssetBalance>,
}

#[derive(Serialize)]
struct AssetBalance {
    asset: Asset,
    balance: Balance,
}

pub(super) async fn balances(
    InSession(session): InSession,
    Segment(account): Segment<String>,
) -> Result<Served<AccountBalances>, ApiError> {
    let account: AccountId = value("account", "invalid_account", &account)?;
    let read = session.run_read(async |conn| Served::result(conn, conn.balances(&account).await)).await?;
    Ok(read.map(|balances| {
        let balances = balances.into_iter().map(|(asset, balance)| AssetBalance { asset, balance }).collect();
        AccountBalances { account, balances }
    }))
}

pub(super) async fn balance(
    State(service): State<Service>,
    InSession(session): InSession,
    Segment((account, asset)): Segment<(String, String)>,
) -> Result<Served<AccountBalance>, ApiError> {
    let account: AccountId = value("account", "invalid_account", &account)?;
    let asset = known_asset(&asset, &service.settings.assets)?;
    let read =
        session.run_read(async |conn| Served::result(conn, conn.balance(&account, &asset).await)).await?;
    Ok(read.map(|balance| AccountBalance { account, asset, balance }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TotalsParams {
    asset: String,
    from: String,
    to: String,
}

#[derive(Serialize)]
pub(super) struct Totals {
    asset: Asset,
    from: NaiveDate,
    to: NaiveDate,
    days: Vec<DayTotal>,
}

pub(super) async fn totals(
    State(service): State<Service>,
    InSession(session): InSession,
    Params(params): Params<TotalsParams>,
) -> Result<Served<Totals>, ApiError> {
    let asset = known_asset(&params.asset, &service.settings.assets)?;
    let from: NaiveDate = value("from", "invalid_date", &params.from)?;
    let to: NaiveDate = value("to", "invalid_date", &params.to)?;
    if !(0..MAX_DAYS).contains(&(to - from).num_days()) {
        let message = format!("`from` comes before `to`, and at most {MAX_DAYS} days lie between them");
        return Err(ApiError::invalid("invalid_date", message));
    }
    let read = session
        .run_read(async |conn| Served::result(conn, conn.totals_per_day(&asset, from, to).await))
        .await?;
    Ok(read.map(|days| Totals { asset, from, to, days }))
}
