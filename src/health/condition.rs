//! From looks at a node to its health.

use tokio::time::Instant;

use super::recovery::Recovery;
use crate::config::ReadSettings;
use crate::error::{ConnectError, Proof};
use crate::topology::{Evidence, Health, Loss, Sighting};

/// What came of one look.
#[derive(Debug, Clone)]
pub(crate) enum Look {
    /// The node answered.
    Answered(Evidence),
    /// It did not, or not as it should.
    Missed(Loss, Signs),
    /// Its monitor got no session, and a session of a pool told all the same how the node is.
    Borrowed(Evidence, Loss, Signs),
}

/// What the sessions of the pools showed while a look was missed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Signs {
    /// Whether any of them got an answer since the look before.
    pub(crate) answered: bool,
    /// Whether any of them is open, as far as this machine knows.
    pub(crate) open: bool,
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

/// Consecutive looks without an answer before a silent node is lost.
///
/// One can be a hiccup, of this machine as well.
const MISSES_UNTIL_LOST: u32 = 2;

/// The same for misses that take no time: the way is broken, or something in front of the server hangs up.
///
/// With the pauses of the default backoff in between, four of them take as long as two that time out.
const FAST_MISSES_UNTIL_LOST: u32 = 4;

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
            Look::Missed(loss, signs) => {
                let change = self.missed(&loss, signs, settings, now);
                self.loss = Some(loss);
                change
            }
            Look::Borrowed(evidence, loss, signs) => {
                let change = self.missed(&loss, signs, settings, now);
                self.loss = Some(loss);
                if !self.is_gone() {
                    self.sighting = Sighting::Seen(evidence);
                }
                change
            }
        }
    }

    /// Acts on what the miss proves about the server, not on the fact that it was missed.
    fn missed(&mut self, loss: &Loss, signs: Signs, settings: &ReadSettings, now: Instant) -> Change {
        let limit = match loss {
            Loss::Connect(error) => match error.proof() {
                Proof::Alive => return self.refused(error, signs),
                Proof::NotListening => return self.lose(settings, now),
                // Only new sessions cannot be had; those that are open are not concerned.
                Proof::NotAsked if signs.open && !self.is_gone() => return self.shut_out(Health::Unchecked),
                Proof::NotAsked | Proof::Silence => FAST_MISSES_UNTIL_LOST,
            },
            // The server answered, with an error.
            Loss::Failed { .. } => return self.shut_out(Health::Unchecked),
            Loss::TimedOut { .. } | Loss::Disconnected => MISSES_UNTIL_LOST,
        };
        self.misses += 1;
        if self.misses >= limit || self.health == Health::Unseen {
            // A slow login or a way that only the monitor cannot take: others get their answers.
            if signs.answered && !self.is_gone() {
                self.health = Health::Unchecked;
                return Change::Nothing;
            }
            return self.lose(settings, now);
        }
        if self.health != Health::Lost {
            self.health = Health::Suspect;
        }
        Change::Nothing
    }

    /// The node lives, and the sessions that there are go on. What was seen of it stands, so that a password that was
    /// changed does not take the primary away; a promotion elsewhere still fences it.
    fn refused(&mut self, error: &ConnectError, signs: Signs) -> Change {
        match error {
            ConnectError::Full(_) => self.shut_out(Health::Full),
            ConnectError::Refused { .. } | ConnectError::PasswordMissing(_) => self.shut_out(Health::Refused),
            // Shut down in the smart mode, it lets those finish who are there.
            ConnectError::NotReady(_) if signs.open => self.shut_out(Health::Starting),
            ConnectError::NotReady(_) => self.set_aside(Health::Starting),
            _ => self.shut_out(Health::Unchecked),
        }
    }

    /// Returns `true` if there is no role and no session to keep.
    fn is_gone(&self) -> bool {
        matches!(self.health, Health::Lost | Health::Unseen)
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

    fn lose(&mut self, settings: &ReadSettings, now: Instant) -> Change {
        if self.health == Health::Lost {
            return Change::Nothing;
        }
        // A node that was never there has nothing to come back from, and one that is still away is lost once.
        if self.health != Health::Unseen && !self.away {
            self.recovery.on_loss(settings, now);
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
        silent(Signs::default())
    }

    fn silent(signs: Signs) -> Look {
        Look::Missed(Loss::TimedOut { limit: Duration::from_millis(300) }, signs)
    }

    fn not_asked(signs: Signs) -> Look {
        let error = ConnectError::NameNotResolved(ErrorKind::Other.into());
        Look::Missed(Loss::Connect(Arc::new(error)), signs)
    }

    const OPEN: Signs = Signs { answered: false, open: true };
    const ANSWERED: Signs = Signs { answered: true, open: true };

    fn refused() -> Look {
        let error = ConnectError::Unreachable(ErrorKind::ConnectionRefused.into());
        Look::Missed(Loss::Connect(Arc::new(error)), ANSWERED)
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

    /// A name that did not resolve, or a program without a descriptor, severed the sessions that worked.
    #[test]
    fn what_fails_on_this_machine_loses_no_node_whose_sessions_are_open() {
        let (settings, now) = (ReadSettings::default(), Instant::now());
        let mut condition = Condition::default();
        condition.on(answer(now), &settings, now);
        for _ in 0..100 {
            assert_eq!(condition.on(not_asked(OPEN), &settings, now), Change::Nothing);
        }
        assert_eq!(condition.health, Health::Unchecked);
        assert!(condition.sighting.evidence().is_some(), "it keeps its role");
        let looks = (0..4).map(|_| condition.on(not_asked(Signs::default()), &settings, now));
        assert_eq!(looks.last(), Some(Change::Gone), "nothing is left that could tell");
    }

    /// The login of a monitor timed out while the sessions of the pools were served.
    #[test]
    fn a_silent_node_whose_sessions_get_answers_is_not_lost_until_they_get_none() {
        let (settings, now) = (ReadSettings::default(), Instant::now());
        let mut condition = Condition::default();
        condition.on(answer(now), &settings, now);
        for _ in 0..10 {
            assert_eq!(condition.on(silent(ANSWERED), &settings, now), Change::Nothing);
        }
        assert_eq!(condition.health, Health::Unchecked);
        assert_eq!(
            condition.on(silent(OPEN), &settings, now),
            Change::Gone,
            "open, and silent like the node"
        );
        assert_eq!(condition.on(silent(ANSWERED), &settings, now), Change::Nothing);
        assert_eq!(
            condition.health,
            Health::Lost,
            "its role is gone, so an answer of a session does not bring it back"
        );
    }
}
