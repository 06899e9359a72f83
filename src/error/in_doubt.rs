//! A transaction whose outcome is not known yet.

use std::sync::Arc;

use tokio::time::Instant;

use crate::lsn::Lsn;

/// A transaction whose outcome may have to be resolved.
///
/// It holds the transaction's id and how far the log was when the id had been written to it. Ids are
/// not unique for ever: a server that lost the end of its log, by a crash or because a standby was
/// promoted that had not received it, gives them out again. The position tells whether a survivor knows *this* transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InDoubt {
    /// Identity of the cluster.
    pub system_identifier: u64,
    /// The timeline on which the transaction ran.
    pub timeline: u32,
    /// The transaction's 64-bit id.
    pub transaction_id: u64,
    /// A position in the log after the transaction's first record.
    pub position: Lsn,
    /// Up to where the server had recovered when it started, if it had to.
    pub recovered_to: Option<Lsn>,
    /// The configured address of the node on which it ran: another node's timeline of the same number is another history.
    pub(crate) node: Arc<str>,
    /// When it was noted: recoveries that the set saw later may have lost the transaction.
    pub(crate) noted: Instant,
}
