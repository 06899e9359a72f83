//! Replaying a ledger: every line recorded, every balance compared.
//!
//! A ledger is a file of an account's movements, with the balance after each. Another program wrote it, so this crate
//! has no influence on its content. After each line, the balance in the database must be the one in the file, and at
//! the end the replicas must agree.
//!
//! * [`Ledger`]: reads and checks a whole file before anything is stored (pure)
//! * [`Replay`]: records it and compares
//! * [`Report`], [`Difference`]: the results
//! * `access`: one account's way to the set, through a session or without one
//! * `tally`: counts of the reads; `verify`: the last balances, from the replicas
//!
//! # Stale reads
//!
//! The balance after each line is read from the replicas, through a session of the account, so it must be the new one.
//! [`Settings::with_tokens`] turns the sessions off, to show what they are for.
//!
//! # Twice
//!
//! Each line is recorded as a transaction of the provider `ledger`, with the line's id as the provider's id. So a line
//! that is already stored is not recorded again. An interrupted run can be repeated, and continues where it ended; a
//! run of a fully stored ledger records nothing. A stored line is compared by its content, but not by the balance after
//! it, because later lines may also be stored. The last balances are compared in any case. Two runs at the same time
//! see each other's lines and report differences.

pub use self::file::{Entry, Ledger, LedgerError, LedgerIssue};
pub use self::report::{Difference, DifferenceAt, ReplayError, Report};
pub use self::run::{Replay, Settings};

mod access;
mod file;
mod first;
mod report;
mod run;
mod tally;
mod verify;
