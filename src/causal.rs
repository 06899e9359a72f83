//! Positions in the write-ahead log, and what follows from them.
//!
//! * [`Lsn`]: a position, as PostgreSQL writes it

pub use self::lsn::{InvalidLsn, Lsn};

mod lsn;
