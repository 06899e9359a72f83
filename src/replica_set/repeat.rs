//! Decides if, when and where a read is run again after its node failed it (pure).
//!
//! A read is safe to repeat, but not free. Three things bound the repeats: a number of retries for each read, a growing
//! pause between them, and a budget that all reads share. Without the budget, a set in which everything fails would get
//! several times its load.
//!
//! A read can also be the *cause*. A statement that crashes its backend would take the nodes down one by one, the
//! primary last. So a read that lost two sessions in the middle of a statement is the suspect, and no further node gets
//! it. If the nodes themselves are up, such as after `pg_terminate_backend`, one of them gets the read once more,
//! because sessions can also be ended at random.

use std::time::Duration;

use super::budget::{Budget, Limits};
use crate::SqlState;
use crate::backoff::{Backoff, Delays};
use crate::topology::NodeId;

/// The way in which a node failed a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The server ended the transaction because of a conflict, such as with replay.
    ///
    /// The session may go on.
    Conflict,
    /// The session ended, and the read is not to blame.
    ///
    /// No answer was pending, or this program ended the session, or the server did for an unrelated reason.
    Lost,
    /// An administrator's command ended the session during the read (57P01).
    ///
    /// If the server goes on, the read may be the reason.
    Terminated,
    /// The session broke, or ended with another error, while the read ran in it.
    Crashed,
}

impl Failure {
    /// Classifies an ended session by the server's last error and a pending answer.
    pub(super) fn of_lost(said: Option<SqlState>, pending: bool, closed_here: bool) -> Self {
        match said {
            Some(code) if code.is_transient_conflict() => Self::Conflict,
            _ if closed_here || !pending => Self::Lost,
            Some(SqlState::ADMIN_SHUTDOWN) => Self::Terminated,
            // The server shuts down, restarts because of another session, or ended an idle session or one whose
            // database was dropped.
            Some(code) if code.class() == "57" || code.class() == "25" => Self::Lost,
            _ => Self::Crashed,
        }
    }
}

/// The decision about a read that its node failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Run the read again after a pause, preferably on a node that has not failed it.
    Again(Duration),
    /// Run the read again after a pause, on one of the replicas that failed it.
    OnTheSame(Duration),
    /// Return the read's error.
    GiveUp(Reason),
}

/// The reason why a read is not run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The read has used all its retries.
    Retries,
    /// All reads together have used the shared budget.
    Budget,
    /// The read is suspected of ending the sessions in which it runs.
    Suspect,
    /// The call's deadline has passed.
    Deadline,
}

impl Reason {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Retries => "its retries are used up (`reads.retries`)",
            Self::Budget => "too many reads are repeated already",
            Self::Suspect => "it lost its session twice",
            Self::Deadline => "the call waits no longer (`ReadOptions::within`)",
        }
    }
}

/// Proportion of reads that may repeat, after their first move to another node.
///
/// Every read has that first move. Without a bound, a set in which everything fails gets several times its load. The
/// savings are for a node whose replay cancels everything that runs on it at once.
pub(super) fn budget() -> Budget {
    Budget::new(0.2, Limits { start: 100, most: 200 })
}

/// Returns the pauses between retries.
///
/// The first one, 5 ms, is about the time of a short read, so the cause may be over by then. More than half a second is
/// too long a wait for one retry.
fn pauses() -> Delays {
    let policy = Backoff::new(Duration::from_millis(10), Duration::from_millis(250));
    policy.and_then(|policy| policy.with_jitter(0.5)).expect("a valid schedule").delays()
}

/// The failures of one read.
#[derive(Debug)]
pub(super) struct Repeats {
    retries: u32,
    used: u32,
    pauses: Option<Delays>,
    /// The nodes that failed the read, each once, the last one at the end.
    failed_on: Vec<NodeId>,
    /// The nodes on which the read lost its sessions in the middle, with the failure.
    blamed_on: Vec<(NodeId, Failure)>,
    /// `true` if the suspect had its last chance.
    confirmed: bool,
    /// `true` if the last failure was a conflict, or not the first of the read.
    pause: bool,
}

impl Repeats {
    pub(super) fn new(retries: u32) -> Self {
        let (failed_on, blamed_on) = (Vec::new(), Vec::new());
        Self { retries, used: 0, pauses: None, failed_on, blamed_on, confirmed: false, pause: false }
    }

    /// Records a failure.
    pub(super) fn note(&mut self, node: NodeId, failure: Failure) {
        self.pause = failure == Failure::Conflict || !self.failed_on.is_empty();
        self.failed_on.retain(|other| *other != node);
        self.failed_on.push(node);
        if matches!(failure, Failure::Terminated | Failure::Crashed) {
            self.blamed_on.push((node, failure));
        }
    }

    /// Returns the nodes that failed the read, the last one at the end.
    pub(super) fn failed_on(&self) -> &[NodeId] {
        &self.failed_on
    }

    /// Returns the nodes on which the session was ended by command.
    ///
    /// If these nodes are up, the read is to blame.
    pub(super) fn terminated_on(&self) -> impl Iterator<Item = NodeId> {
        self.blamed_on.iter().filter(|(_, failure)| *failure == Failure::Terminated).map(|(node, _)| *node)
    }

    /// Stops blaming the read for a session whose node went down.
    pub(super) fn acquit(&mut self, node: NodeId) {
        self.blamed_on.retain(|(other, _)| *other != node);
    }

    /// Returns `true` if the read lost two sessions.
    pub(super) fn is_suspect(&self) -> bool {
        self.blamed_on.len() > 1
    }

    /// Returns `true` if the read lost a session, so the next one is tested first.
    pub(super) fn is_blamed(&self) -> bool {
        !self.blamed_on.is_empty()
    }

    /// Decides after a failure; the first move away from a node is free.
    pub(super) fn decide(&mut self, budget: &Budget) -> Decision {
        let crashed = |(_, failure): &(NodeId, Failure)| *failure == Failure::Crashed;
        if self.is_suspect() && (self.confirmed || self.blamed_on.iter().any(crashed)) {
            return Decision::GiveUp(Reason::Suspect);
        }
        if self.used >= self.retries {
            return Decision::GiveUp(Reason::Retries);
        }
        if !self.pause {
            self.used += 1;
            return Decision::Again(Duration::ZERO);
        }
        if !budget.withdraw() {
            return Decision::GiveUp(Reason::Budget);
        }
        self.used += 1;
        let pause = self.pauses.get_or_insert_with(pauses).next().unwrap_or_default();
        if self.is_suspect() {
            self.confirmed = true;
            return Decision::OnTheSame(pause);
        }
        Decision::Again(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> [NodeId; 3] {
        [(); 3].map(|()| NodeId::next())
    }

    fn after(failures: &[(NodeId, Failure)]) -> (Repeats, Decision) {
        let mut repeats = Repeats::new(4);
        let mut decision = Decision::Again(Duration::ZERO);
        for (node, failure) in failures {
            repeats.note(*node, *failure);
            decision = repeats.decide(&budget());
        }
        (repeats, decision)
    }

    #[test]
    fn the_first_move_away_from_a_lost_node_is_at_once_and_free() {
        let [a, b, _] = nodes();
        let mut repeats = Repeats::new(4);
        repeats.note(a, Failure::Lost);
        let empty = Budget::new(0.0, Limits { start: 0, most: 0 });
        assert_eq!(repeats.decide(&empty), Decision::Again(Duration::ZERO));
        repeats.note(b, Failure::Lost);
        assert_eq!(repeats.decide(&empty), Decision::GiveUp(Reason::Budget));
        assert_eq!(repeats.failed_on(), [a, b]);
    }

    #[test]
    fn a_conflict_is_repeated_after_pauses_that_grow_and_not_for_ever() {
        let [a, ..] = nodes();
        let mut repeats = Repeats::new(4);
        let mut waits = Vec::new();
        loop {
            repeats.note(a, Failure::Conflict);
            match repeats.decide(&budget()) {
                Decision::Again(pause) => waits.push(pause),
                decision => break assert_eq!(decision, Decision::GiveUp(Reason::Retries)),
            }
        }
        assert_eq!(waits.len(), 4);
        assert!(waits[0] >= Duration::from_millis(5) && waits[3] >= Duration::from_millis(40), "{waits:?}");
    }

    #[test]
    fn a_read_that_crashed_on_two_nodes_is_given_up_and_one_that_was_ended_there_stays_there() {
        let [a, b, _] = nodes();
        for (node, other) in [(b, Failure::Crashed), (b, Failure::Terminated), (a, Failure::Crashed)] {
            let (_, decision) = after(&[(a, Failure::Crashed), (node, other)]);
            assert_eq!(decision, Decision::GiveUp(Reason::Suspect));
        }
        let (_, decision) = after(&[(a, Failure::Terminated), (b, Failure::Terminated)]);
        assert!(matches!(decision, Decision::OnTheSame(_)), "{decision:?}");
        let (_, decision) =
            after(&[(a, Failure::Terminated), (b, Failure::Terminated), (a, Failure::Terminated)]);
        assert_eq!(decision, Decision::GiveUp(Reason::Suspect));
    }

    #[test]
    fn a_node_that_went_down_makes_no_suspect() {
        let [a, b, _] = nodes();
        let (_, decision) = after(&[(a, Failure::Lost), (a, Failure::Crashed), (b, Failure::Lost)]);
        assert!(matches!(decision, Decision::Again(_)), "{decision:?}");
        let mut repeats = Repeats::new(4);
        repeats.note(a, Failure::Terminated);
        repeats.note(b, Failure::Terminated);
        repeats.acquit(a);
        assert!(matches!(repeats.decide(&budget()), Decision::Again(_)));
    }

    #[test]
    fn only_a_session_that_ended_in_the_middle_of_the_read_is_held_against_it() {
        let code = |code: &[u8; 5]| Some(SqlState::new(*code));
        for (said, pending, closed_here, expected) in [
            (None, true, false, Failure::Crashed),
            (None, false, false, Failure::Lost),
            (None, true, true, Failure::Lost),
            (code(b"57P01"), true, false, Failure::Terminated),
            (code(b"57P02"), true, false, Failure::Lost),
            (code(b"57P04"), true, false, Failure::Lost),
            (code(b"57P05"), true, false, Failure::Lost),
            (code(b"25P03"), true, false, Failure::Lost),
            (code(b"40001"), true, false, Failure::Conflict),
            (code(b"XX000"), true, false, Failure::Crashed),
        ] {
            assert_eq!(
                Failure::of_lost(said, pending, closed_here),
                expected,
                "{said:?} {pending} {closed_here}"
            );
        }
    }
}
