//! In-doubt transactions: their outcome is not known yet.

use std::sync::Arc;

use tokio::time::Instant;

use crate::lsn::Lsn;

/// A transaction whose outcome may have to be resolved.
///
/// It holds the transaction's id, and the log position once the id had been written to the log. Ids are not unique for
/// ever. A server that lost the end of its log, by a crash or by the promotion of a standby that had not received it,
/// assigns the same ids again. The position identifies *this* transaction.
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
    /// End of the server's last recovery, if it recovered when it started.
    pub recovered_to: Option<Lsn>,
    /// The configured address of the node on which it ran.
    ///
    /// On another node, a timeline of the same number is another history.
    pub(crate) node: Arc<str>,
    /// Time of the record; a recovery after it may have lost the transaction.
    pub(crate) noted: Instant,
}
