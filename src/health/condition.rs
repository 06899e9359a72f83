//! From looks at a node to its health.

use tokio::time::Instant;

use super::recovery::Recovery;
use crate::config::ReadSettings;
use crate::error::ConnectError;
use crate::topology::{Evidence, Health, Loss, Sighting};

/// What came of one look.
#[derive(Debug, Clone)]
pub(crate) enum Look {
    /// The node answered.
    Answered(Evidence),
    /// It did not, or not as it should.
    Missed(Loss),
}

/// What a look changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing that anybody has to act on.
    Nothing,
    /// The node is gone: its connections must end, since nobody knows when they would.
    Gone,
    /// It is back.
    Back,
}

/// What is known of one node, and how that came about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Condition {
    pub(crate) health: Health,
    pub(crate) sighting: Sighting,
    pub(crate) loss: Option<Loss>,
    pub(crate) recovery: Recovery,
    misses: u32,
    /// It was lost, and has not answered since: one that is back often says first that it is starting.
    away: bool,
}

/// So many looks in a row must miss before a node that merely does not answer is called lost.
///
/// One can be a hiccup, of this machine as well; a connection that is refused leaves no doubt and needs no second.
const MISSES_UNTIL_LOST: u32 = 2;

impl Condition {
    /// Takes a look into account.
    pub(crate) fn on(&mut self, look: Look, settings: &ReadSettings, now: Instant) -> Change {
        match look {
            Look::Answered(evidence) => {
                let was_lost = std::mem::take(&mut self.away);
                self.health = Health::Up;
                self.sighting = Sighting::Seen(evidence);
                self.loss = None;
                self.misses = 0;
                if was_lost {
                    self.recovery.on_return(settings, now);
                    return Change::Back;
                }
                Change::Nothing
            }
            Look::Missed(loss) => {
                let change = self.missed(&loss, now);
                self.loss = Some(loss);
                change
            }
        }
    }

    fn missed(&mut self, loss: &Loss, now: Instant) -> Change {
        if let Loss::Connect(error) = loss {
            match **error {
                // The node lives, and the sessions that there are go on. What was seen of it stands, so that a password that
                // was changed does not take the primary away; a promotion elsewhere still fences it.
                ConnectError::Full(_) => return self.shut_out(Health::Full),
                ConnectError::Refused { .. } | ConnectError::PasswordMissing(_) => {
                    return self.shut_out(Health::Refused);
                }
                ConnectError::NotReady(_) => return self.set_aside(Health::Starting),
                ConnectError::Unreachable(_) | ConnectError::NameNotResolved(_) => return self.lose(now),
                _ => {}
            }
        }
        self.misses += 1;
        if self.misses >= MISSES_UNTIL_LOST || self.health == Health::Unseen {
            return self.lose(now);
        }
        if self.health != Health::Lost {
            self.health = Health::Suspect;
        }
        Change::Nothing
    }

    fn shut_out(&mut self, health: Health) -> Change {
        self.health = health;
        self.misses = 0;
        if matches!(self.sighting, Sighting::Unseen) {
            self.sighting = Sighting::Lost;
        }
        Change::Nothing
    }

    fn set_aside(&mut self, health: Health) -> Change {
        self.health = health;
        self.sighting = Sighting::Lost;
        self.misses = 0;
        Change::Nothing
    }

    fn lose(&mut self, now: Instant) -> Change {
        if self.health == Health::Lost {
            return Change::Nothing;
        }
        // A node that was never there has nothing to come back from, and one that is still away is lost once.
        if self.health != Health::Unseen && !self.away {
            self.recovery.on_loss(now);
        }
        self.away = true;
        self.health = Health::Lost;
        self.sighting = Sighting::Lost;
        Change::Gone
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    fn answer(now: Instant) -> Look {
        Look::Answered(Evidence::standby(1, 1, now))
    }

    fn timed_out() -> Look {
        Look::Missed(Loss::TimedOut { limit: Duration::from_millis(300) })
    }

    fn refused() -> Look {
        Look::Missed(Loss::Connect(Arc::new(ConnectError::Unreachable(ErrorKind::ConnectionRefused.into()))))
    }

    #[test]
    fn one_missed_look_makes_a_suspect_and_a_second_one_a_loss() {
        let (settings, now) = (ReadSettings::default(), Instant::now());
        let mut condition = Condition::default();
        assert_eq!(condition.on(answer(now), &settings, now), Change::Nothing);
        assert_eq!(condition.on(timed_out(), &settings, now), Change::Nothing);
        assert_eq!(condition.health, Health::Suspect);
        assert!(condition.sighting.evidence().is_some(), "a suspect keeps its role");
        assert_eq!(condition.on(timed_out(), &settings, now), Change::Gone);
        assert!(condition.sighting.evidence().is_none());
        assert_eq!(condition.on(timed_out(), &settings, now), Change::Nothing, "it is lost once");
        assert_eq!(condition.on(answer(now), &settings, now), Change::Back);
        assert_eq!(condition.health, Health::Up);
    }

    #[test]
    fn an_answer_between_two_misses_clears_the_first() {
        let (settings, now) = (ReadSettings::default(), Instant::now());
        let mut condition = Condition::default();
        for look in [answer(now), timed_out(), answer(now), timed_out()] {
            assert_eq!(condition.on(look, &settings, now), Change::Nothing);
        }
        assert_eq!(condition.health, Health::Suspect);
    }

    #[test]
    fn a_refused_connection_needs_no_second_look() {
        let (settings, now) = (ReadSettings::default(), Instant::now());
        let mut condition = Condition::default();
        condition.on(answer(now), &settings, now);
        assert_eq!(condition.on(refused(), &settings, now), Change::Gone);
    }

    /// Its return was noticed only if it answered right after it had been lost.
    #[test]
    fn a_node_that_is_starting_before_it_is_back_is_taken_in_step_by_step() {
        let (settings, now) = (ReadSettings::default(), Instant::now());
        let mut condition = Condition::default();
        condition.on(answer(now), &settings, now);
        assert_eq!(condition.on(refused(), &settings, now), Change::Gone);
        assert_eq!(condition.set_aside(Health::Starting), Change::Nothing);
        assert_eq!(condition.on(answer(now), &settings, now), Change::Back);
        assert_eq!(condition.recovery.allowance(&settings, now), Some(1));
        assert_eq!(condition.on(answer(now), &settings, now), Change::Nothing, "it is back once");
    }

    #[test]
    fn a_full_server_is_not_a_lost_one() {
        let (settings, now) = (ReadSettings::default(), Instant::now());
        let mut condition = Condition::default();
        condition.on(answer(now), &settings, now);
        for health in [Health::Full, Health::Refused] {
            condition.shut_out(health);
            assert!(condition.sighting.evidence().is_some(), "it keeps its role: {health}");
        }
        assert_eq!(condition.on(timed_out(), &settings, now), Change::Nothing);
        let mut never_seen = Condition::default();
        never_seen.shut_out(Health::Refused);
        assert!(
            matches!(never_seen.sighting, Sighting::Lost),
            "it was looked at, and nothing is known of it"
        );
    }

    #[test]
    fn a_node_that_is_not_there_at_the_start_is_lost_at_once_and_returns_without_ejection() {
        let (settings, now) = (ReadSettings::default(), Instant::now());
        let mut condition = Condition::default();
        assert_eq!(condition.on(refused(), &settings, now), Change::Gone);
        assert_eq!(condition.on(answer(now), &settings, now), Change::Back);
        assert!(!condition.recovery.is_ejected(now));
    }
}
