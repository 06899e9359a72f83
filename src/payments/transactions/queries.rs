//! The statements on transactions that only read.

use bigdecimal::BigDecimal;
use chrono::NaiveDate;
use diesel::dsl::{count_star, sum};
use uuid::Uuid;

use super::{DayTotal, Transaction, TransactionFilter};
use crate::payments::page::List;
use crate::payments::schema::account_balances;
use crate::payments::schema::transactions::{
    self, account, amount, asset, id, kind, occurred_at, provider, provider_id, settlement_id, status,
};
use crate::payments::{
    AccountId, Asset, Balance, Cursor, Error, Kind, Page, PageRequest, PageSize, Provider, ProviderId, sql,
};
use crate::prelude::*;

pub(super) async fn find(conn: &Conn<Read>, wanted: Uuid) -> Result<Option<Transaction>, Error> {
    let query = transactions::table.find(wanted).select(Transaction::as_select());
    Ok(query.get_result(conn).await.optional()?)
}

pub(super) async fn find_by_provider_id(
    conn: &Conn<Read>,
    teller: &Provider,
    name: &ProviderId,
) -> Result<Option<Transaction>, Error> {
    let query = transactions::table
        .filter(provider.eq(teller))
        .filter(provider_id.eq(name))
        .select(Transaction::as_select());
    Ok(query.get_result(conn).await.optional()?)
}

pub(super) async fn list(
    conn: &Conn<Read>,
    filter: &TransactionFilter,
    page: PageRequest,
) -> Result<Page<Transaction>, Error> {
    let mut query = transactions::table.select(Transaction::as_select()).into_boxed();
    if let Some(wanted) = &filter.account {
        query = query.filter(account.eq(wanted));
    }
    if let Some(wanted) = &filter.asset {
        query = query.filter(asset.eq(wanted));
    }
    if let Some(wanted) = filter.kind {
        query = query.filter(kind.eq(wanted));
    }
    if let Some(wanted) = filter.status {
        query = query.filter(status.eq(wanted));
    }
    if let Some(wanted) = filter.settlement {
        query = query.filter(settlement_id.eq(wanted));
    }
    if let Some(from) = filter.from {
        query = query.filter(occurred_at.ge(sql::storable(from)));
    }
    if let Some(before) = filter.before {
        query = query.filter(occurred_at.lt(sql::storable(before)));
    }
    if let Some(cursor) = page.after {
        let (time, last) = cursor.time(List::Transactions)?;
        // The first condition bounds the scan of the index, the second leaves out the rest of that moment.
        query = query.filter(occurred_at.le(time)).filter(occurred_at.lt(time).or(id.lt(last)));
    }
    let query = query.order((occurred_at.desc(), id.desc())).limit(page.size.rows());
    let rows: Vec<Transaction> = query.load(conn).await?;
    Ok(Page::cut(rows, page.size, |row| Cursor::at_time(List::Transactions, row.occurred_at, row.id)))
}

/// The two sums of a group of transactions; a side without transactions is NULL.
type Sums = (Option<BigDecimal>, Option<BigDecimal>);

/// Returns the sums of the deposits and of the withdrawals.
///
/// It is an expression whose type need not be written.
macro_rules! sums {
    () => {
        (
            sum(amount).aggregate_filter(kind.eq(Kind::Deposit)),
            sum(amount).aggregate_filter(kind.eq(Kind::Withdrawal)),
        )
    };
}

fn difference((deposits, withdrawals): Sums) -> Balance {
    Balance::from(deposits.unwrap_or_default() - withdrawals.unwrap_or_default())
}

pub(super) async fn balance(conn: &Conn<Read>, of: &AccountId, what: &Asset) -> Result<Balance, Error> {
    let query = account_balances::table.find((of, what)).select(account_balances::balance);
    let balance: Option<Balance> = query.get_result(conn).await.optional()?;
    Ok(balance.unwrap_or_default())
}

pub(super) async fn balances(conn: &Conn<Read>, of: &AccountId) -> Result<Vec<(Asset, Balance)>, Error> {
    let query = account_balances::table
        .filter(account_balances::account.eq(of))
        .select((account_balances::asset, account_balances::balance))
        .order(account_balances::asset);
    Ok(query.load(conn).await?)
}

pub(super) async fn last_balances(
    conn: &Conn<Read>,
    what: &Asset,
    after: Option<&AccountId>,
    size: PageSize,
) -> Result<Vec<(AccountId, Balance)>, Error> {
    // No account sorts before the empty text, so the first page needs no separate statement.
    let after = after.map_or("", AccountId::as_str);
    let query = transactions::table
        .filter(asset.eq(what))
        .filter(status.eq(sql::Completed))
        .filter(account.gt(after))
        .group_by(account)
        .select((account, sums!()))
        .order(account)
        .limit(size.items() as i64);
    let rows: Vec<(AccountId, Sums)> = query.load(conn).await?;
    Ok(rows.into_iter().map(|(of, sums)| (of, difference(sums))).collect())
}

pub(super) async fn totals_per_day(
    conn: &Conn<Read>,
    what: &Asset,
    from: NaiveDate,
    to: NaiveDate,
) -> Result<Vec<DayTotal>, Error> {
    let query = transactions::table
        .filter(asset.eq(what))
        .filter(status.eq(sql::Completed))
        .filter(occurred_at.ge(sql::start_of(from)))
        .filter(occurred_at.lt(sql::end_of(to)))
        .group_by(sql::day())
        .select((sql::day(), sums!(), count_star()))
        .order(sql::day());
    let rows: Vec<(NaiveDate, Sums, i64)> = query.load(conn).await?;
    Ok(rows.into_iter().map(day_total).collect())
}

fn day_total((day, (deposits, withdrawals), count): (NaiveDate, Sums, i64)) -> DayTotal {
    let deposits = Balance::from(deposits.unwrap_or_default());
    let withdrawals = Balance::from(withdrawals.unwrap_or_default());
    DayTotal { day, deposits, withdrawals, count }
}
