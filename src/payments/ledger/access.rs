//! One account's way to the set: through a session, or without one.

use std::time::Duration;

use crate::payments::{
    self, AccountId, Asset, Balance, Conflict, NewTransaction, Transaction, TransactionRepository,
};
use crate::{CheckoutError, Conn, Read, ReadOptions, ReplicaSet, Role, Session, Write, WriteOptions};

/// Every line takes effect once, through any failover.
const ONCE: WriteOptions = WriteOptions::new().exactly_once();

/// Reads and writes for one account.
pub(super) enum Access<'a> {
    /// Reads see the writes before them, on every node.
    Session(Session),
    /// Reads see what their node has replayed.
    Plain(&'a ReplicaSet),
}

/// The reason why an operation failed.
pub(super) enum Failed {
    Checkout(CheckoutError),
    /// The connection was lost, or the outcome of a COMMIT is unknown.
    ///
    /// To record the line again is safe, because its id is unique.
    Lost(payments::Error),
    Other(payments::Error),
}

impl Failed {
    fn of(error: payments::Error, is_closed: bool) -> Self {
        if is_closed { Self::Lost(error) } else { Self::Other(error) }
    }
}

impl From<CheckoutError> for Failed {
    fn from(error: CheckoutError) -> Self {
        Self::Checkout(error)
    }
}

/// The errors of BEGIN and COMMIT.
impl From<diesel::result::Error> for Failed {
    fn from(error: diesel::result::Error) -> Self {
        Self::Lost(error.into())
    }
}

/// A balance, and how it was read.
pub(super) struct ReadBack {
    pub(super) balance: Balance,
    pub(super) node: String,
    pub(super) role: Role,
    /// Time until a node had reached the session's position.
    pub(super) wait: Duration,
}

impl<'a> Access<'a> {
    pub(super) fn new(set: &'a ReplicaSet, with_tokens: bool) -> Self {
        if with_tokens { Self::Session(set.session()) } else { Self::Plain(set) }
    }

    /// Records a transaction, unless an equal one is stored; returns `true` if it did.
    pub(super) async fn record(&self, new: &NewTransaction) -> Result<bool, Failed> {
        let record = async |tx: &mut Conn<Write>| {
            let recorded = tx.record_transaction(new).await;
            recorded.map_err(|error| Failed::of(error, tx.is_closed()))
        };
        let recorded = match self {
            Self::Session(session) => session.run_write_with(&ONCE, record).await,
            Self::Plain(set) => set.run_write_with(&ONCE, record).await,
        };
        let taken = match recorded {
            Ok(_) => return Ok(true),
            Err(Failed::Other(error @ payments::Error::Conflict(Conflict::ProviderId { .. }))) => error,
            Err(failed) => return Err(failed),
        };
        let there = self.find(new).await?;
        if there.is_some_and(|there| is_same(&there, new)) { Ok(false) } else { Err(Failed::Other(taken)) }
    }

    /// Finds the stored transaction on the primary, so that a session has seen it.
    async fn find(&self, new: &NewTransaction) -> Result<Option<Transaction>, Failed> {
        let find = async |tx: &mut Conn<Write>| {
            let found = tx.find_transaction_by_provider_id(&new.provider, &new.provider_id).await;
            found.map_err(|error| Failed::of(error, tx.is_closed()))
        };
        match self {
            Self::Session(session) => session.run_write(find).await,
            Self::Plain(set) => set.run_write(find).await,
        }
    }

    /// Reads a balance, from a replica if one is fit.
    pub(super) async fn balance(
        &self,
        options: &ReadOptions,
        account: &AccountId,
        asset: &Asset,
    ) -> Result<ReadBack, Failed> {
        let read = async |conn: &mut Conn<Read>| {
            let balance = conn.balance(account, asset).await.map_err(Failed::Other)?;
            let (node, role, wait) = (conn.node().to_owned(), conn.role(), conn.causal_wait());
            Ok::<_, Failed>(ReadBack { balance, node, role, wait })
        };
        match self {
            Self::Session(session) => session.run_read_with(options, read).await,
            Self::Plain(set) => set.run_read_with(options, read).await,
        }
    }
}

/// Returns `true` if a stored line equals the one in the ledger.
fn is_same(there: &Transaction, new: &NewTransaction) -> bool {
    there.account == new.account
        && there.kind == new.kind
        && there.amount == new.amount
        && there.asset == new.asset
        && there.status == new.status
        && Some(there.occurred_at) == new.occurred_at
}
