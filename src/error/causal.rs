//! The errors of reads and writes that follow a causal token.

use std::time::Duration;

use crate::lsn::Lsn;

/// The reason why no node could satisfy a [`CausalToken`](crate::CausalToken).
///
/// Nothing was sent to a server on behalf of the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CausalError {
    /// A failover lost something that was acknowledged and that the token covers.
    ///
    /// The new primary had not received it. The caller must find out what is missing, and do it again; a
    /// [`Session`](crate::Session) goes on after [`forget`](crate::Session::forget). A write that other sessions made at
    /// the same moment can move the token a little further than its own write, so now and then a write that survived is
    /// reported as well.
    #[error(
        "a write was acknowledged at {position} on timeline {timeline} and lost by a failover, which kept the history up to \
         {fork}: find out what is missing, and call `Session::forget` to go on"
    )]
    Lost {
        /// The timeline on which the write was acknowledged.
        timeline: u32,
        /// The position that the token names.
        position: Lsn,
        /// The end of the history that was kept, at most.
        fork: Lsn,
    },
    /// The token is older than a failover that this set did not see.
    ///
    /// It cannot be known if its write survived.
    #[error(
        "it is not known if the history of timeline {timeline} up to {position} survived the failovers since: find out if the \
         write is there, and call `Session::forget` to go on"
    )]
    HistoryUnknown {
        /// The timeline of the token.
        timeline: u32,
        /// The position that the token names.
        position: Lsn,
    },
    /// The token belongs to another cluster.
    #[error("the causal token belongs to another database cluster: send it to the service that made it")]
    Foreign,
    /// The token names a position that the cluster has not written.
    ///
    /// It is made up, or comes from a primary that this set does not know.
    #[error(
        "the causal token names {position} on timeline {timeline}, which no node has written: it is invalid"
    )]
    Ahead {
        /// The timeline of the token.
        timeline: u32,
        /// The position that the token names.
        position: Lsn,
    },
    /// No node had reached the token's position within the deadline.
    #[error(
        "no node that may serve the read had reached {position} within {waited:?}: let reads fall back to the primary \
         (`reads.fallback`, `reads.max_fallback`), or wait longer"
    )]
    NotCaughtUp {
        /// The position that the token requires.
        position: Lsn,
        /// Time waited.
        waited: Duration,
    },
    /// The connection ended before a write's position came, and then a failover came.
    ///
    /// So it is not known if the write survived.
    #[error(
        "the position of a write on timeline {timeline} was lost with its connection, and a failover followed: find out if the \
         write is there, and call `Session::forget` to go on"
    )]
    PositionUnknown {
        /// The timeline of the write.
        timeline: u32,
    },
    /// The server refused to tell its position, so no token can be made.
    #[error(
        "the server did not tell its WAL position after a write: grant the role EXECUTE on pg_current_wal_insert_lsn(), \
         pg_last_wal_replay_lsn() and pg_walfile_name()"
    )]
    NoPosition,
}
