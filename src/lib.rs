//! Pointsman
pub use self::conn::{AsyncFunc, Conn, TransactionBuilder};
pub use self::error::*;
pub use self::intent::{Intent, Read, Writable, Write};
pub use self::run_query::{RunQueryDsl, SaveChangesDsl};
pub use self::statement::{AssumeReadOnly, Permits, ReadOnly, SetOperation, assume_read_only};
pub mod backoff;
pub mod config;
pub mod conn;
pub mod error;
pub mod intent;
mod link;
mod node;
#[cfg(feature = "payments")]
pub mod payments;
mod pool;
pub mod run_query;
pub mod statement;
pub mod topology;

/// Everything that a file needs to run statements: Diesel's prelude, with Pointsman's traits in the place of Diesel's.
pub mod prelude {
    pub use diesel::prelude::*;
    pub use diesel::result::QueryResult;

    pub use crate::{Conn, Intent, Read, ReadOnly, RunQueryDsl, SaveChangesDsl, Writable, Write};
}
