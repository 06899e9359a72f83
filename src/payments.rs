//! A payments repository on typed connections.
//!
//! It is the crate's own first user: a trait per aggregate, generic over the intent. Its writing methods have the bound
//! [`Writable`](crate::Writable). So a deposit cannot be recorded on a replica, and a function that only reports cannot
//! write by accident.
//!
//! * [`TransactionRepository`]: deposits and withdrawals; balances are sums over them
//! * [`SettlementRepository`]: completed transactions, summed and closed, each exactly once
//! * [`AuditRepository`]: an append-only log of actions and their actors
//! * [`Amount`], [`Balance`], [`Asset`], [`AccountId`] and more: values that are valid once they exist
//! * [`Page`], [`PageRequest`], [`Cursor`]: lists, page by page
//! * [`MIGRATIONS`]: the tables, for [`migrate::run`](crate::migrate::run)
//!
//! [The guide](crate::guide::payments) explains the tables and the rules.

use diesel_migrations::{EmbeddedMigrations, embed_migrations};

pub use self::amount::{Amount, AmountError};
pub use self::audit::{Action, AuditEntry, AuditFilter, AuditRepository, Entity, NewAuditEntry};
pub use self::balance::Balance;
pub use self::code::{AccountId, Actor, Asset, CodeError, IdempotencyKey, Provider, ProviderId};
pub use self::error::{Conflict, Error};
pub use self::page::{BadCursor, Cursor, Page, PageRequest, PageSize};
pub use self::settlements::{Settlement, SettlementRepository, SettlementStatus, Settling};
pub use self::status::{Kind, Status, UnknownName};
pub use self::transactions::{
    DayTotal, NewCallback, NewTransaction, Recorded, Transaction, TransactionFilter, TransactionRepository,
};

mod amount;
mod audit;
mod balance;
mod code;
mod error;
#[cfg(feature = "service")]
pub mod http;
#[cfg(feature = "service")]
pub mod ledger;
mod page;
#[expect(
    missing_docs,
    reason = "Diesel's tool writes it, from tables whose rows are documented where they are made"
)]
#[rustfmt::skip] // It stays as the tool writes it, so that the two can be compared.
pub mod schema;
mod settlements;
mod sql;
mod status;
mod transactions;

/// The tables of this module, embedded into the program.
pub const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");
