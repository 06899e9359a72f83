//! The operations of the set's users, and their outcomes.

use std::time::Duration;

use pointsman::prelude::*;
use pointsman::{
    CausalError, CheckoutError, CommitOutcome, Error, ReadOptions, ReplicaSet, Session, WriteOptions,
};
use tokio::time::{Instant, timeout};

use crate::server::wal::Entry;

diesel::table! {
    /// Each write appends a row.
    ledger (id) {
        id -> BigInt,
        account -> Integer,
    }
}

/// One operation of a user; the number of its row is its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// `run_read`.
    Read {
        account: i32,
    },
    SessionRead {
        session: usize,
    },
    /// Writes to the session's own account.
    SessionWrite {
        session: usize,
        id: i64,
    },
    /// `run_write`.
    Write {
        id: i64,
        account: i32,
    },
    /// `run_write_with` a resolvable transaction, which is resolved if its outcome is unknown.
    Resolvable {
        id: i64,
        account: i32,
    },
    /// `run_write_with` exactly once.
    Once {
        id: i64,
        account: i32,
    },
    /// One statement on a connection of `write`.
    Bare {
        id: i64,
        account: i32,
    },
    /// A write whose future is dropped after some milliseconds.
    AbandonedWrite {
        id: i64,
        account: i32,
        after: u32,
    },
    /// A read whose future is dropped after some milliseconds.
    AbandonedRead {
        account: i32,
        after: u32,
    },
}

/// The outcome that a user got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Read(Vec<i64>),
    /// The write is acknowledged.
    Written,
    /// The write was resolved after its outcome was unknown.
    Resolved(CommitOutcome),
    /// The error says that the outcome is unknown.
    Unknown,
    /// The error says that nothing happened.
    Failed(String),
    /// The session was told that it has lost something.
    Lost,
    /// The future was dropped.
    Abandoned,
}

/// An operation that has ended.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) operation: Operation,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    pub(crate) outcome: Outcome,
    /// `true` if the present primary had the row by then.
    pub(crate) is_there: bool,
}

/// The account of a session, which no other operation uses.
pub(crate) fn account_of(session: usize) -> i32 {
    1_000 + i32::try_from(session).unwrap_or(0)
}

impl Operation {
    /// Returns the row that the operation writes.
    pub(crate) fn entry(self) -> Option<Entry> {
        match self {
            Self::Write { id, account }
            | Self::Resolvable { id, account }
            | Self::Once { id, account }
            | Self::Bare { id, account }
            | Self::AbandonedWrite { id, account, .. } => Some(Entry { id, account }),
            Self::SessionWrite { session, id } => Some(Entry { id, account: account_of(session) }),
            Self::Read { .. } | Self::SessionRead { .. } | Self::AbandonedRead { .. } => None,
        }
    }

    /// Runs the operation.
    pub(crate) async fn run(self, set: ReplicaSet, sessions: Vec<Session>) -> Done {
        let began = Instant::now();
        let outcome = match self {
            Self::Read { account } => {
                read(set.run_read_with(&limited(), async |conn| entries(conn, account).await)).await
            }
            Self::AbandonedRead { account, after } => {
                let limit = Duration::from_millis(after.into());
                let reading = set.run_read(async |conn| entries(conn, account).await);
                match timeout(limit, reading).await {
                    Ok(outcome) => read(async { outcome }).await,
                    Err(_) => Outcome::Abandoned,
                }
            }
            Self::SessionRead { session } => {
                let (account, session) = (account_of(session), &sessions[session]);
                let reading = session.run_read_with(&limited(), async |conn| entries(conn, account).await);
                forgetting(session, read(reading).await)
            }
            Self::SessionWrite { session, id } => {
                let (account, session) = (account_of(session), &sessions[session]);
                let written = session.run_write(async |tx| insert(tx, id, account).await).await;
                forgetting(session, written.map_or_else(|error| failed(&error), |()| Outcome::Written))
            }
            Self::Write { id, account } => {
                let written = set.run_write(async |tx| insert(tx, id, account).await).await;
                written.map_or_else(|error| failed(&error), |()| Outcome::Written)
            }
            Self::Resolvable { id, account } => resolvable(&set, id, account).await,
            Self::Once { id, account } => {
                let options = WriteOptions::new().exactly_once();
                let written = set.run_write_with(&options, async |tx| insert(tx, id, account).await).await;
                written.map_or_else(|error| failed(&error), |()| Outcome::Written)
            }
            Self::Bare { id, account } => match set.write().await {
                Ok(conn) => match insert(&conn, id, account).await {
                    Ok(()) => Outcome::Written,
                    // No transaction is around it, so only the caller knows what the error means.
                    Err(_) => Outcome::Unknown,
                },
                Err(error) => Outcome::Failed(error.to_string()),
            },
            Self::AbandonedWrite { id, account, after } => {
                let limit = Duration::from_millis(after.into());
                let writing = set.run_write(async |tx| insert(tx, id, account).await);
                match timeout(limit, writing).await {
                    Ok(Ok(())) => Outcome::Written,
                    Ok(Err(error)) => failed(&error),
                    Err(_) => Outcome::Abandoned,
                }
            }
        };
        Done { operation: self, began, ended: Instant::now(), outcome, is_there: false }
    }
}

/// Time for which a read may wait for connections.
pub(crate) const READ_LIMIT: Duration = Duration::from_secs(3);

fn limited() -> ReadOptions {
    ReadOptions::new().within(READ_LIMIT)
}

async fn entries(conn: &Conn<Read>, account: i32) -> Result<Vec<i64>, Error> {
    Ok(ledger::table.filter(ledger::account.eq(account)).select(ledger::id).load(conn).await?)
}

async fn insert(conn: &Conn<Write>, id: i64, account: i32) -> Result<(), Error> {
    let row = (ledger::id.eq(id), ledger::account.eq(account));
    diesel::insert_into(ledger::table).values(row).execute(conn).await?;
    Ok(())
}

async fn read(reading: impl Future<Output = Result<Vec<i64>, Error>>) -> Outcome {
    reading.await.map_or_else(|error| failed(&error), Outcome::Read)
}

async fn resolvable(set: &ReplicaSet, id: i64, account: i32) -> Outcome {
    let options = WriteOptions::new().resolvable();
    match set.run_write_with(&options, async |tx| insert(tx, id, account).await).await {
        Ok(()) => Outcome::Written,
        Err(Error::OutcomeUnknown(unknown)) => match &unknown.in_doubt {
            Some(in_doubt) => match set.resolve(in_doubt).await {
                Ok(outcome) => Outcome::Resolved(outcome),
                Err(_) => Outcome::Unknown,
            },
            None => Outcome::Unknown,
        },
        Err(error) => failed(&error),
    }
}

fn failed(error: &Error) -> Outcome {
    match error {
        Error::OutcomeUnknown(_) => Outcome::Unknown,
        Error::Checkout(CheckoutError::Causal(
            CausalError::Lost { .. } | CausalError::HistoryUnknown { .. },
        )) => Outcome::Lost,
        error => Outcome::Failed(format!("{error:?}")),
    }
}

/// Lets a session go on after it was told of a loss.
fn forgetting(session: &Session, outcome: Outcome) -> Outcome {
    if outcome == Outcome::Lost {
        session.forget();
    }
    outcome
}
