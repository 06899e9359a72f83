//! Decides from the signs around a COMMIT if the transaction was committed (pure).

use crate::SqlState;
use crate::error::InDoubt;

/// The signs that one run of a transaction left, for the decision to run it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunSigns {
    /// The last thing that the run did.
    pub(crate) stage: Stage,
    /// The original connection was in place, without an open inner transaction.
    pub(crate) intact: bool,
    /// The connection had ended.
    pub(crate) ended: bool,
    /// The end of the connection reached a statement, or it was used after its end.
    pub(crate) hit: bool,
    /// The server owed an answer when the connection ended.
    pub(crate) owed: bool,
    /// This program closed the connection.
    pub(crate) severed: bool,
    /// The transaction conflicted with others.
    pub(crate) conflict: bool,
    /// The server's last error, or the one that failed the transaction.
    pub(crate) sqlstate: Option<SqlState>,
}

/// The last thing that one run of a transaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// `BEGIN` failed.
    Begin,
    /// The function returned an error.
    Function,
    /// The function returned a value, and there was nothing to commit.
    Refused,
    /// The function returned a value, and a COMMIT was tried.
    Commit {
        outcome: Outcome,
        /// The server did not wait for its synchronous standby.
        locally: bool,
    },
}

/// The note on a transaction whose COMMIT was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// There is no note.
    NotNoted,
    /// The transaction had written nothing, so its COMMIT had nothing to carry out.
    Nothing,
    Noted(InDoubt),
}

impl Doubt {
    pub(super) fn in_doubt(&self) -> Option<InDoubt> {
        match self {
            Self::Noted(in_doubt) => Some(in_doubt.clone()),
            Self::NotNoted | Self::Nothing => None,
        }
    }
}

/// The signs that the connection showed of a COMMIT.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommitSigns {
    /// The connection had ended before the COMMIT, or never got it.
    ///
    /// A part of a message has no effect, so it counts as not sent.
    pub(crate) not_sent: bool,
    /// The driver reported success.
    pub(crate) succeeded: bool,
    /// The server ended a transaction since the COMMIT was sent.
    pub(crate) ended: bool,
    /// The server's last command that ended a transaction rolled it back.
    pub(crate) rolled_back: bool,
    /// The server sent an error.
    pub(crate) rejected: bool,
    /// The session goes on, without a transaction.
    pub(crate) goes_on: bool,
}

/// The outcome of a COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The transaction is committed.
    Committed,
    /// Nothing was sent to the server, so the end of its session rolled back.
    NotSent,
    /// The server rejected the COMMIT, and rolled back.
    Rejected,
    /// The server answered the COMMIT with a ROLLBACK, because a statement had failed.
    RolledBack,
    /// No transaction ended, so the COMMIT ran on another connection.
    NotEnded,
    /// The transaction may be committed.
    Unknown,
}

/// Decides the outcome of an outermost transaction's COMMIT.
pub(crate) fn outcome(signs: CommitSigns) -> Outcome {
    let CommitSigns { not_sent, succeeded, ended, rolled_back, rejected, goes_on } = signs;
    match (succeeded, ended) {
        (true, false) => Outcome::NotEnded,
        (true, true) if rolled_back => Outcome::RolledBack,
        (true, true) => Outcome::Committed,
        (false, _) if not_sent => Outcome::NotSent,
        // The server certainly did not commit only if it sent an error and the session goes on. A server that crashed
        // while it wrote the commit to its log sends an error as well.
        (false, _) if rejected && goes_on => Outcome::Rejected,
        (false, _) => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A COMMIT that the server carried out.
    const COMMITTED: CommitSigns = CommitSigns {
        not_sent: false,
        succeeded: true,
        ended: true,
        rolled_back: false,
        rejected: false,
        goes_on: true,
    };

    /// A COMMIT during which the connection was lost.
    const LOST: CommitSigns = CommitSigns { succeeded: false, ended: false, goes_on: false, ..COMMITTED };

    #[test]
    fn the_answer_and_the_session_decide_the_outcome_of_a_commit() {
        for (signs, expected) in [
            (COMMITTED, Outcome::Committed),
            (CommitSigns { rolled_back: true, ..COMMITTED }, Outcome::RolledBack),
            (CommitSigns { ended: false, ..COMMITTED }, Outcome::NotEnded),
            // A rollback before this transaction says nothing about it.
            (CommitSigns { ended: false, rolled_back: true, ..COMMITTED }, Outcome::NotEnded),
            // The session ended right after the answer.
            (CommitSigns { goes_on: false, ..COMMITTED }, Outcome::Committed),
            (CommitSigns { not_sent: true, ..LOST }, Outcome::NotSent),
            (CommitSigns { not_sent: true, rejected: true, ..LOST }, Outcome::NotSent),
            // A deferred constraint, or a serialization failure.
            (CommitSigns { rejected: true, goes_on: true, ..LOST }, Outcome::Rejected),
            (LOST, Outcome::Unknown),
            // The server crashed, or was shut down, and said so.
            (CommitSigns { rejected: true, ..LOST }, Outcome::Unknown),
            // The driver gave up, but no error came from the server.
            (CommitSigns { goes_on: true, ..LOST }, Outcome::Unknown),
        ] {
            assert_eq!(outcome(signs), expected, "{signs:?}");
        }
    }
}
