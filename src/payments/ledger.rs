//! Replaying a ledger: every line recorded, every balance compared.
//!
//! A ledger is a file of what moved on which account, with the balance after each movement. It was written
//! by somebody else's software, so it is a judge that this crate has no influence on: after each
//! line, the balance in the database must be the one in the file, and at the end the replicas must agree.
//!
//! * [`Ledger`]: reads and checks a whole file before anything is stored (pure)
//! * [`Replay`]: records it and compares
//! * [`Report`], [`Difference`]: what came of it
//! * `verify`: the last balances, from the replicas; `position`: how far these must have come
//!
//! # Twice
//!
//! Each line is recorded as a transaction of the provider `ledger`, with its id as the provider's id, so a line
//! that is already there is not recorded again. A run that was interrupted can be repeated, and goes on
//! where it ended; a run of a ledger that is wholly there records nothing. A line that was there is
//! compared by its content, and the balance after it is not looked at, since what comes later in the
//! ledger may be there, too; the last balances are compared in any case. Two runs at the same time see each other's
//! lines and report differences.

pub use self::file::{Entry, Fault, Ledger, LedgerError};
pub use self::report::{Difference, DifferenceAt, ReplayError, Report};
pub use self::run::{Replay, Settings};

mod file;
mod first;
mod position;
mod report;
mod run;
mod verify;
