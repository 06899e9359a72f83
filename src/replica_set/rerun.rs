//! Decides if a transaction runs again after a run that failed (pure).
//!
//! A run without effect may be repeated: the server ended it because of a conflict, or its connection died before the
//! COMMIT was sent. A run whose COMMIT got no answer must be resolved first. The error of the function itself is final.
//!
//! Three things bound the repeats. Conflicts have `writes.retries`. Lost connections have one deadline, which begins
//! with the first loss. And a transaction that lost [`SESSIONS`] sessions in the middle of a statement is suspected of
//! ending them, and does not get another one. Sessions that were open at the first loss count once, because the
//! sessions of a server that dies end one after the other.

use std::time::Duration;

use tokio::time::Instant;

use super::repeat::Failure;
use crate::SqlState;
use crate::backoff::{Backoff, Delays};
use crate::conn::{Doubt, Outcome, RunSigns, Stage};

/// Sessions that a transaction may lose in the middle of a statement.
///
/// A statement that crashes its server process restarts the whole primary each time. Two losses can be the bad luck of
/// a second failover, right after the first one.
pub(super) const SESSIONS: u32 = 3;

/// The decision about one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Return the run's outcome.
    Return,
    /// Run the transaction again, because this run had no effect.
    Again(Cause),
    /// Find out what became of the COMMIT.
    Resolve,
}

/// The reason why a run had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The transaction conflicted with others.
    Conflict,
    /// The connection was lost, and the transaction is not to blame.
    Lost,
    /// The server ended the session in the middle of a statement.
    ///
    /// The statement may be the reason.
    Suspect,
    /// The connection was lost without a word in the middle of a statement.
    ///
    /// The statement may have crashed the server.
    Crashed,
}

/// Decides by the signs of a run.
///
/// `demoted` is `true` if the run failed because its node is no primary any more.
pub(super) fn decide(signs: &RunSigns, demoted: bool, exactly_once: bool, doubt: &Doubt) -> Decision {
    let &RunSigns { stage, intact, ended, hit, conflict, .. } = signs;
    if let Stage::Commit { outcome, locally } = stage {
        match outcome {
            Outcome::NotSent => return lost(signs, hit),
            Outcome::Committed if !locally => return Decision::Return,
            Outcome::Committed | Outcome::Unknown if exactly_once => {
                return match doubt {
                    // Its COMMIT had nothing to carry out.
                    Doubt::Nothing => lost(signs, hit),
                    Doubt::Noted(_) => Decision::Resolve,
                    Doubt::NotNoted => Decision::Return,
                };
            }
            Outcome::Committed | Outcome::Unknown | Outcome::NotEnded => return Decision::Return,
            Outcome::Rejected | Outcome::RolledBack => {}
        }
    }
    match stage {
        _ if conflict => Decision::Again(Cause::Conflict),
        _ if demoted && intact => Decision::Again(Cause::Lost),
        Stage::Begin if ended => Decision::Again(Cause::Lost),
        // Otherwise the error is the function's own, although the connection has ended.
        Stage::Function | Stage::Refused if ended && hit && intact => lost(signs, signs.owed),
        _ => Decision::Return,
    }
}

/// Decides after a lost connection; `owed` is `true` if a statement was running.
fn lost(signs: &RunSigns, owed: bool) -> Decision {
    match Failure::of_lost(signs.sqlstate, owed, signs.severed) {
        // The function was idle for too long, which it would be again.
        _ if signs.sqlstate.is_some_and(|code| IDLE.contains(&code)) => Decision::Return,
        Failure::Conflict | Failure::Lost => Decision::Again(Cause::Lost),
        Failure::Terminated => Decision::Again(Cause::Suspect),
        Failure::Crashed => Decision::Again(Cause::Crashed),
    }
}

/// The codes of `idle_in_transaction_session_timeout` and `transaction_timeout`.
const IDLE: [SqlState; 2] = [SqlState::new(*b"25P03"), SqlState::new(*b"25P04")];

/// The repeats of one transaction.
#[derive(Debug)]
pub(super) struct Reruns {
    /// Repeats that are left after conflicts.
    conflicts: u32,
    /// Repeats that are left after sessions lost in the middle of a statement.
    sessions: u32,
    waits: Delays,
    longest: Duration,
    /// The limit of the call's options.
    limit: Option<Instant>,
    /// Time for which lost connections are repeated.
    failover_wait: Duration,
    deadline: Option<Instant>,
    first_loss: Option<Instant>,
}

impl Reruns {
    pub(super) fn new(
        retries: u32,
        backoff: &Backoff,
        limit: Option<Instant>,
        failover_wait: Duration,
    ) -> Self {
        let (waits, longest) = (backoff.delays(), backoff.max());
        Self {
            conflicts: retries,
            sessions: SESSIONS - 1,
            waits,
            longest,
            limit,
            failover_wait,
            deadline: None,
            first_loss: None,
        }
    }

    /// Returns the limit of the next checkout.
    pub(super) fn limit(&self) -> Option<Instant> {
        self.limit.or(self.deadline)
    }

    /// Returns the deadline for all that follows the first lost connection.
    pub(super) fn deadline(&mut self, now: Instant) -> Instant {
        let deadline = self.limit.unwrap_or(now + self.failover_wait);
        *self.deadline.get_or_insert(deadline)
    }

    /// Returns the cause, with regard to the losses before.
    ///
    /// A session that was opened before the first loss may have been lost with the same server process.
    pub(super) fn judge(&self, cause: Cause, opened: Instant) -> Cause {
        match cause {
            Cause::Crashed if self.first_loss.is_some_and(|first| opened < first) => Cause::Lost,
            cause => cause,
        }
    }

    /// Returns the pause before the next run; `None` if there is none.
    pub(super) fn pause(&mut self, cause: Cause, now: Instant) -> Option<Duration> {
        if cause != Cause::Conflict {
            self.first_loss.get_or_insert(now);
        }
        let is_first = self.deadline.is_none();
        let (limit, left) = match cause {
            // The conflict explains more than the lack of time.
            Cause::Conflict => (self.limit, Some(&mut self.conflicts)),
            Cause::Lost => (Some(self.deadline(now)), None),
            Cause::Suspect | Cause::Crashed => (Some(self.deadline(now)), Some(&mut self.sessions)),
        };
        let is_conflict = cause == Cause::Conflict;
        if let Some(left) = left {
            *left = left.checked_sub(1)?;
        }
        // The checkout waits for the next primary anyway.
        let wait = match is_first && !is_conflict {
            true => Duration::ZERO,
            false => self.waits.next().unwrap_or(self.longest),
        };
        limit.is_none_or(|limit| now + wait < limit).then_some(wait)
    }
}

#[cfg(test)]
mod tests;
