//! Settlements: completed transactions, summed and closed, each exactly once.
//!
//! * [`SettlementRepository`]: the trait, and its implementation for [`Conn`]
//! * `model`: the rows and their parts
//! * `queries`: the statements that only read, and `settle`: those that write

use std::future::Future;

use uuid::Uuid;

pub use self::model::{Settlement, SettlementStatus, Settling};
use super::{Actor, Asset, Error, Page, PageRequest};
use crate::{Conn, Intent, Writable};

mod model;
mod queries;
pub(super) mod settle;

/// Reads and makes settlements.
///
/// ```
/// use pointsman::payments::{Error, Settlement, SettlementRepository, Settling};
/// use pointsman::prelude::*;
///
/// /// Settles what there is, in portions.
/// async fn settle_all(conn: &mut Conn<Write>, settling: &Settling) -> Result<Vec<Settlement>, Error> {
///     let mut settlements = Vec::new();
///     while let Some(settlement) = conn.settle(settling).await? {
///         settlements.push(settlement);
///     }
///     Ok(settlements)
/// }
/// ```
///
/// # Errors
///
/// Every method fails with [`Error::Query`] if the database fails, besides the errors that it names itself.
pub trait SettlementRepository<I: Intent> {
    /// Finds a settlement by its id.
    fn find_settlement(&self, id: Uuid) -> impl Future<Output = Result<Option<Settlement>, Error>> + Send;

    /// Lists settlements, of one asset or of all, the latest first.
    ///
    /// # Errors
    ///
    /// [`Error::BadCursor`] if the cursor belongs to another list.
    fn list_settlements(
        &self,
        asset: Option<&Asset>,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<Settlement>, Error>> + Send;

    /// Sums completed transactions, and marks them as settled.
    ///
    /// It also writes the settlement and its audit entry.
    ///
    /// All of it is one transaction: everything happens, or nothing. Returns `None` if there is nothing to settle.
    ///
    /// Any number of settlements may run at once, and none settles another's transactions: each locks its rows, and
    /// skips locked ones. So a settlement may leave out transactions that another one is about to take, and `None`
    /// means that nothing is left *for this one*.
    ///
    /// # Cancel safety
    ///
    /// A dropped future ends the connection and may or may not have settled; the list shows the outcome.
    fn settle(
        &mut self,
        settling: &Settling,
    ) -> impl Future<Output = Result<Option<Settlement>, Error>> + Send
    where
        I: Writable;

    /// Marks a settlement as paid out. A second time changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is no such settlement.
    ///
    /// # Cancel safety
    ///
    /// A dropped future ends the connection and may or may not have changed it. It is safe to repeat.
    fn mark_settlement_paid(
        &mut self,
        id: Uuid,
        actor: &Actor,
    ) -> impl Future<Output = Result<Settlement, Error>> + Send
    where
        I: Writable;
}

impl<I: Intent> SettlementRepository<I> for Conn<I> {
    async fn find_settlement(&self, id: Uuid) -> Result<Option<Settlement>, Error> {
        queries::find(self.as_read(), id).await
    }

    async fn list_settlements(
        &self,
        asset: Option<&Asset>,
        page: PageRequest,
    ) -> Result<Page<Settlement>, Error> {
        queries::list(self.as_read(), asset, page).await
    }

    async fn settle(&mut self, settling: &Settling) -> Result<Option<Settlement>, Error>
    where
        I: Writable,
    {
        self.as_write_mut().transaction(async |tx| settle::settle(tx, settling).await).await
    }

    async fn mark_settlement_paid(&mut self, id: Uuid, actor: &Actor) -> Result<Settlement, Error>
    where
        I: Writable,
    {
        self.as_write_mut().transaction(async |tx| settle::mark_paid(tx, id, actor).await).await
    }
}
