//! Decides from the signs around a COMMIT if the transaction was committed (pure).

/// The signs that the connection showed of a COMMIT.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommitSigns {
    /// The connection had ended before the COMMIT.
    pub(super) was_over: bool,
    /// The driver reported success.
    pub(super) succeeded: bool,
    /// The server ended a transaction since the COMMIT was sent.
    pub(super) ended: bool,
    /// The server's last command that ended a transaction rolled it back.
    pub(super) rolled_back: bool,
    /// The server sent an error.
    pub(super) rejected: bool,
    /// The session goes on, without a transaction.
    pub(super) goes_on: bool,
}

/// The outcome of a COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
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
pub(super) fn outcome(signs: CommitSigns) -> Outcome {
    let CommitSigns { was_over, succeeded, ended, rolled_back, rejected, goes_on } = signs;
    match (succeeded, ended) {
        (true, false) => Outcome::NotEnded,
        (true, true) if rolled_back => Outcome::RolledBack,
        (true, true) => Outcome::Committed,
        (false, _) if was_over => Outcome::NotSent,
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
        was_over: false,
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
            (CommitSigns { was_over: true, ..LOST }, Outcome::NotSent),
            (CommitSigns { was_over: true, rejected: true, ..LOST }, Outcome::NotSent),
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
