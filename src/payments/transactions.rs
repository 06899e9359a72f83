//! Transactions: deposits and withdrawals.
//!
//! * [`TransactionRepository`]: the trait, and its implementation for [`Conn`]
//! * `model`: the rows and their parts
//! * `queries`: the statements that only read, and `record`: those that write

use std::future::Future;

use chrono::NaiveDate;
use uuid::Uuid;

pub use self::model::{DayTotal, NewCallback, NewTransaction, Recorded, Transaction, TransactionFilter};
use super::{
    AccountId, Actor, Asset, Balance, Error, Page, PageRequest, PageSize, Provider, ProviderId, Status,
};
use crate::{Conn, Intent, Writable};

mod model;
mod queries;
pub(super) mod record;

/// Reads and records transactions.
///
/// Every [`Conn`] implements it, but the methods that write need an intent that is [`Writable`]. A function that only
/// reports should take a `&Conn<Read>`, so that a replica can also serve it.
///
/// ```
/// use pointsman::payments::{Error, NewTransaction, Transaction, TransactionRepository};
/// use pointsman::prelude::*;
/// use uuid::Uuid;
///
/// async fn find(conn: &Conn<Read>, id: Uuid) -> Result<Option<Transaction>, Error> {
///     conn.find_transaction(id).await
/// }
///
/// async fn record(conn: &Conn<Write>, new: &NewTransaction) -> Result<Transaction, Error> {
///     conn.record_transaction(new).await
/// }
/// ```
///
/// A write on a connection that may be served by a replica does not compile:
///
/// ```compile_fail,E0277
/// # use pointsman::payments::{Error, NewTransaction, Transaction, TransactionRepository};
/// # use pointsman::prelude::*;
/// async fn record(conn: &Conn<Read>, new: &NewTransaction) -> Result<Transaction, Error> {
///     conn.record_transaction(new).await
/// }
/// ```
///
/// # Errors
///
/// Every method fails with [`Error::Query`] if the database fails, besides the errors that it names itself.
pub trait TransactionRepository<I: Intent> {
    /// Finds a transaction by its id.
    fn find_transaction(&self, id: Uuid) -> impl Future<Output = Result<Option<Transaction>, Error>> + Send;

    /// Finds a transaction by the id that its provider gave it.
    fn find_transaction_by_provider_id(
        &self,
        provider: &Provider,
        provider_id: &ProviderId,
    ) -> impl Future<Output = Result<Option<Transaction>, Error>> + Send;

    /// Lists transactions, the latest first.
    ///
    /// # Errors
    ///
    /// [`Error::BadCursor`] if the cursor belongs to another list.
    fn list_transactions(
        &self,
        filter: &TransactionFilter,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<Transaction>, Error>> + Send;

    /// Returns an account's balance of an asset.
    ///
    /// It is completed deposits less completed withdrawals.
    ///
    /// An account without transactions has zero. The server keeps the balance in the transaction that changes it, so it
    /// costs the same however many transactions there are.
    fn balance(
        &self,
        account: &AccountId,
        asset: &Asset,
    ) -> impl Future<Output = Result<Balance, Error>> + Send;

    /// Returns an account's balances of all its assets, in their order.
    fn balances(
        &self,
        account: &AccountId,
    ) -> impl Future<Output = Result<Vec<(Asset, Balance)>, Error>> + Send;

    /// Sums each account's transactions of an asset, in the accounts' order.
    ///
    /// It reads the transactions themselves, so it checks what [`balance`](Self::balance) returns.
    ///
    /// It continues after the last account of the previous call. The last page has fewer entries than the page's size.
    /// Accounts without a completed transaction are left out.
    fn last_balances(
        &self,
        asset: &Asset,
        after: Option<&AccountId>,
        size: PageSize,
    ) -> impl Future<Output = Result<Vec<(AccountId, Balance)>, Error>> + Send;

    /// Sums the completed transactions of an asset for each day in UTC.
    ///
    /// Both ends are included.
    ///
    /// Days without transactions are left out.
    fn totals_per_day(
        &self,
        asset: &Asset,
        from: NaiveDate,
        to: NaiveDate,
    ) -> impl Future<Output = Result<Vec<DayTotal>, Error>> + Send;

    /// Records a transaction, in one statement.
    ///
    /// # Errors
    ///
    /// [`Conflict::ProviderId`](super::Conflict::ProviderId) if the provider already has a transaction of that id, even
    /// an equal one: repeated messages are for [`record_callback`](Self::record_callback).
    ///
    /// # Cancel safety
    ///
    /// A dropped future may or may not have recorded it; look with [`find_transaction_by_provider_id`](Self::find_transaction_by_provider_id).
    fn record_transaction(
        &self,
        new: &NewTransaction,
    ) -> impl Future<Output = Result<Transaction, Error>> + Send
    where
        I: Writable;

    /// Records a provider's callback exactly once, however often it is delivered.
    ///
    /// The same key with the same content is [`Recorded::Duplicate`], with the transaction as it is now. Another key
    /// with the same transaction in it reports its progress. A status that the present one
    /// [leads to](Status::leads_to) is stored ([`Recorded::Advanced`]), with an entry in the audit log whose actor is
    /// the provider. The present status, or an earlier one that arrives late, is a duplicate.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] if the key was used for other content, or the provider's id for another transaction;
    /// [`Error::IllegalTransition`] if the status contradicts the present one; [`Error::Settled`] if a settlement has
    /// already summed the transaction. Nothing is stored then.
    ///
    /// # Cancel safety
    ///
    /// A dropped future ends the connection and may or may not have recorded it. It is safe to repeat.
    fn record_callback(
        &mut self,
        callback: &NewCallback,
    ) -> impl Future<Output = Result<Recorded, Error>> + Send
    where
        I: Writable;

    /// Moves a transaction forward to another status, with an entry in the audit log.
    ///
    /// If several callers try at once, one succeeds and the others see its result.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::IllegalTransition`] if the move is not [forward](Status::may_become);
    /// [`Error::Settled`] if a settlement has already summed it.
    ///
    /// # Cancel safety
    ///
    /// A dropped future ends the connection and may or may not have changed the status.
    fn advance_transaction(
        &mut self,
        id: Uuid,
        to: Status,
        actor: &Actor,
    ) -> impl Future<Output = Result<Transaction, Error>> + Send
    where
        I: Writable;
}

impl<I: Intent> TransactionRepository<I> for Conn<I> {
    async fn find_transaction(&self, id: Uuid) -> Result<Option<Transaction>, Error> {
        queries::find(self.as_read(), id).await
    }

    async fn find_transaction_by_provider_id(
        &self,
        provider: &Provider,
        provider_id: &ProviderId,
    ) -> Result<Option<Transaction>, Error> {
        queries::find_by_provider_id(self.as_read(), provider, provider_id).await
    }

    async fn list_transactions(
        &self,
        filter: &TransactionFilter,
        page: PageRequest,
    ) -> Result<Page<Transaction>, Error> {
        queries::list(self.as_read(), filter, page).await
    }

    async fn balance(&self, account: &AccountId, asset: &Asset) -> Result<Balance, Error> {
        queries::balance(self.as_read(), account, asset).await
    }

    async fn balances(&self, account: &AccountId) -> Result<Vec<(Asset, Balance)>, Error> {
        queries::balances(self.as_read(), account).await
    }

    async fn last_balances(
        &self,
        asset: &Asset,
        after: Option<&AccountId>,
        size: PageSize,
    ) -> Result<Vec<(AccountId, Balance)>, Error> {
        queries::last_balances(self.as_read(), asset, after, size).await
    }

    async fn totals_per_day(
        &self,
        asset: &Asset,
        from: NaiveDate,
        to: NaiveDate,
    ) -> Result<Vec<DayTotal>, Error> {
        queries::totals_per_day(self.as_read(), asset, from, to).await
    }

    async fn record_transaction(&self, new: &NewTransaction) -> Result<Transaction, Error>
    where
        I: Writable,
    {
        record::record(self.as_write(), new).await
    }

    async fn record_callback(&mut self, callback: &NewCallback) -> Result<Recorded, Error>
    where
        I: Writable,
    {
        self.as_write_mut().transaction(async |tx| record::callback(tx, callback).await).await
    }

    async fn advance_transaction(&mut self, id: Uuid, to: Status, actor: &Actor) -> Result<Transaction, Error>
    where
        I: Writable,
    {
        self.as_write_mut().transaction(async |tx| record::advance(tx, id, to, actor).await).await
    }
}
