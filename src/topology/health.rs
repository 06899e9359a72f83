//! From probes of a node to its health.

use tokio::time::Instant;

use super::ejection::OutlierEjection;
use crate::config::ReadSettings;
use crate::error::{ConnectError, Proof};
use crate::topology::{Health, LastSeen, Observation, ProbeError};

/// The outcome of one probe.
#[derive(Debug, Clone)]
pub(crate) enum ProbeOutcome {
    /// The node answered.
    Answered(Observation),
    /// The node gave no answer, or an error.
    Missed(ProbeError, Signs),
    /// The monitor had no session, but a pool's session brought an answer.
    Borrowed(Observation, ProbeError, Signs),
}

/// Signs from the pools' sessions while a probe was missed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Signs {
    /// `true` if any of them got an answer since the last probe.
    pub(crate) answered: bool,
    /// `true` if any of them is open, as far as this machine knows.
    pub(crate) open: bool,
}

/// The change that a probe caused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transition {
    /// No change that requires an action.
    None,
    /// The node went down, and its connections must close.
    ///
    /// Otherwise they could hang without end.
    Down,
    /// The node came back.
    Up,
}

/// The health of one node, and the probes that led to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeHealth {
    pub(crate) health: Health,
    pub(crate) last_seen: LastSeen,
    pub(crate) probe_error: Option<ProbeError>,
    pub(crate) ejection: OutlierEjection,
    misses: u32,
    /// `true` from when the node went down until it answers.
    ///
    /// A node that comes back is often `Starting` first.
    was_down: bool,
}

/// Consecutive failed probes before a silent node is marked down.
///
/// A single miss can be a hiccup, of this machine as well.
const MISSES_UNTIL_DOWN: u32 = 2;

/// Consecutive fast failures of a probe before a node is marked down.
///
/// Such a failure takes no time: the network path is broken, or a proxy before the server closes the connection.
/// With the pauses of the default backoff in between, four of these take as long as two timeouts.
const FAST_MISSES_UNTIL_DOWN: u32 = 4;

impl NodeHealth {
    /// Updates the health by a probe's outcome.
    pub(crate) fn on(&mut self, outcome: ProbeOutcome, settings: &ReadSettings, now: Instant) -> Transition {
        match outcome {
            ProbeOutcome::Answered(observation) => {
                let is_back = std::mem::take(&mut self.was_down);
                self.health = Health::Up;
                self.last_seen = LastSeen::Observed(observation);
                self.probe_error = None;
                self.misses = 0;
                if is_back {
                    self.ejection.on_up(settings, now);
                    return Transition::Up;
                }
                Transition::None
            }
            ProbeOutcome::Missed(probe_error, signs) => {
                let change = self.missed(&probe_error, signs, settings, now);
                self.probe_error = Some(probe_error);
                change
            }
            ProbeOutcome::Borrowed(observation, probe_error, signs) => {
                let change = self.missed(&probe_error, signs, settings, now);
                self.probe_error = Some(probe_error);
                if !self.is_down_or_unknown() {
                    self.last_seen = LastSeen::Observed(observation);
                }
                change
            }
        }
    }

    /// Reacts to what the failed probe proves about the server.
    fn missed(
        &mut self,
        probe_error: &ProbeError,
        signs: Signs,
        settings: &ReadSettings,
        now: Instant,
    ) -> Transition {
        let limit = match probe_error {
            ProbeError::Connect(error) => match error.proof() {
                Proof::Alive => return self.rejected(error, signs),
                Proof::NotListening => return self.mark_down(settings, now),
                // Only new sessions fail; open ones are not affected.
                Proof::NotAsked if signs.open && !self.is_down_or_unknown() => {
                    return self.keep_role(Health::Unchecked);
                }
                Proof::NotAsked | Proof::Silence => FAST_MISSES_UNTIL_DOWN,
            },
            // The server answered, with an error.
            ProbeError::Failed { .. } => return self.keep_role(Health::Unchecked),
            ProbeError::TimedOut { .. } | ProbeError::Disconnected => MISSES_UNTIL_DOWN,
        };
        self.misses += 1;
        if self.misses >= limit || self.health == Health::Unknown {
            // A slow login, or a network path that fails for the monitor only: other sessions get their
            // answers.
            if signs.answered && !self.is_down_or_unknown() {
                self.health = Health::Unchecked;
                return Transition::None;
            }
            return self.mark_down(settings, now);
        }
        if self.health != Health::Down {
            self.health = Health::Suspect;
        }
        Transition::None
    }

    /// Handles a rejected connection: the node is alive, its sessions continue.
    ///
    /// The last observation stands, so that a changed password does not cost the set its primary. A promotion
    /// elsewhere still fences the node.
    fn rejected(&mut self, error: &ConnectError, signs: Signs) -> Transition {
        match error {
            ConnectError::TooManyConnections(_) => self.keep_role(Health::TooManyConnections),
            ConnectError::LoginRejected { .. } | ConnectError::PasswordMissing(_) => {
                self.keep_role(Health::LoginRejected)
            }
            // A smart shutdown lets open sessions finish.
            ConnectError::NotReady(_) if signs.open => self.keep_role(Health::Starting),
            ConnectError::NotReady(_) => self.drop_role(Health::Starting),
            _ => self.keep_role(Health::Unchecked),
        }
    }

    /// Returns `true` if there is no role and no session to keep.
    fn is_down_or_unknown(&self) -> bool {
        matches!(self.health, Health::Down | Health::Unknown)
    }

    fn keep_role(&mut self, health: Health) -> Transition {
        self.health = health;
        self.misses = 0;
        if matches!(self.last_seen, LastSeen::Never) {
            self.last_seen = LastSeen::Down;
        }
        Transition::None
    }

    fn drop_role(&mut self, health: Health) -> Transition {
        self.health = health;
        self.last_seen = LastSeen::Down;
        self.misses = 0;
        Transition::None
    }

    fn mark_down(&mut self, settings: &ReadSettings, now: Instant) -> Transition {
        if self.health == Health::Down {
            return Transition::None;
        }
        // A node that was never up cannot come back, and a node that has not answered since goes down only once.
        if self.health != Health::Unknown && !self.was_down {
            self.ejection.on_down(settings, now);
        }
        self.was_down = true;
        self.health = Health::Down;
        self.last_seen = LastSeen::Down;
        Transition::Down
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    fn answer(now: Instant) -> ProbeOutcome {
        ProbeOutcome::Answered(Observation::standby(1, 1, now))
    }

    fn timed_out() -> ProbeOutcome {
        silent(Signs::default())
    }

    fn silent(signs: Signs) -> ProbeOutcome {
        ProbeOutcome::Missed(ProbeError::TimedOut { limit: Duration::from_millis(300) }, signs)
    }

    fn not_asked(signs: Signs) -> ProbeOutcome {
        let error = ConnectError::NameNotResolved(ErrorKind::Other.into());
        ProbeOutcome::Missed(ProbeError::Connect(Arc::new(error)), signs)
    }

    const OPEN: Signs = Signs { answered: false, open: true };
    const ANSWERED: Signs = Signs { answered: true, open: true };

    fn refused() -> ProbeOutcome {
        let error = ConnectError::Unreachable(ErrorKind::ConnectionRefused.into());
        ProbeOutcome::Missed(ProbeError::Connect(Arc::new(error)), ANSWERED)
    }

    #[test]
    fn a_node_is_suspect_after_one_missed_probe_and_down_after_two() {
        let (settings, now) = (ReadSettings::default(), Instant::now());
        let mut node_health = NodeHealth::default();
        assert_eq!(node_health.on(answer(now), &settings, now), Transition::None);
        assert_eq!(node_health.on(timed_out(), &settings, now), Transition::None);
        assert_eq!(node_health.health, Health::Suspect);
        assert!(node_health.last_seen.observation().is_some(), "a suspect keeps its role");
        assert_eq!(node_health.on(timed_out(), &settings, now), Transition::Down);
        assert!(node_health.last_seen.observation().is_none());
        assert_eq!(node_health.on(timed_out(), &settings, now), Transition::None, "it goes down once");
        assert_eq!(node_health.on(answer(now), &settings, now), Transition::Up);
        assert_eq!(node_health.health, Health::Up);
    }

    #[test]
    fn an_answer_between_two_misses_clears_the_first() {
        let (settings, now) = (ReadSettings::default(), Instant::now());
        let mut node_health = NodeHealth::default();
        for outcome in [answer(now), timed_out(), answer(now), timed_out()] {
            assert_eq!(node_health.on(outcome, &settings, now), Transition::None);
        }
        assert_eq!(node_health.health, Health::Suspect);
    }

    #[test]
    fn a_refused_connection_marks_a_node_down_at_once() {
        let (settings, now) = (ReadSettings::default(), Instant::now());
        let mut node_health = NodeHealth::default();
        node_health.on(answer(now), &settings, now);
        assert_eq!(node_health.on(refused(), &settings, now), Transition::Down);
    }

    /// The return of a node was noticed only if its first probe after going down succeeded.
    #[test]
    fn a_node_that_is_starting_before_it_is_up_gets_a_slow_start() {
        let (settings, now) = (ReadSettings::default(), Instant::now());
        let mut node_health = NodeHealth::default();
        node_health.on(answer(now), &settings, now);
        assert_eq!(node_health.on(refused(), &settings, now), Transition::Down);
        assert_eq!(node_health.drop_role(Health::Starting), Transition::None);
        assert_eq!(node_health.on(answer(now), &settings, now), Transition::Up);
        assert_eq!(node_health.ejection.read_limit(&settings, now), Some(1));
        assert_eq!(node_health.on(answer(now), &settings, now), Transition::None, "it is back once");
    }

    #[test]
    fn a_node_with_too_many_connections_is_not_down() {
        let (settings, now) = (ReadSettings::default(), Instant::now());
        let mut node_health = NodeHealth::default();
        node_health.on(answer(now), &settings, now);
        for health in [Health::TooManyConnections, Health::LoginRejected] {
            node_health.keep_role(health);
            assert!(node_health.last_seen.observation().is_some(), "it keeps its role: {health}");
        }
        assert_eq!(node_health.on(timed_out(), &settings, now), Transition::None);
        let mut never_seen = NodeHealth::default();
        never_seen.keep_role(Health::LoginRejected);
        assert!(matches!(never_seen.last_seen, LastSeen::Down), "it was probed, and nothing is known of it");
    }

    #[test]
    fn a_node_that_is_down_at_the_start_comes_back_without_ejection() {
        let (settings, now) = (ReadSettings::default(), Instant::now());
        let mut node_health = NodeHealth::default();
        assert_eq!(node_health.on(refused(), &settings, now), Transition::Down);
        assert_eq!(node_health.on(answer(now), &settings, now), Transition::Up);
        assert!(!node_health.ejection.is_ejected(now));
    }

    /// A name that did not resolve, or a program without a descriptor, closed the sessions that worked.
    #[test]
    fn a_failure_on_this_machine_marks_no_node_with_open_sessions_down() {
        let (settings, now) = (ReadSettings::default(), Instant::now());
        let mut node_health = NodeHealth::default();
        node_health.on(answer(now), &settings, now);
        for _ in 0..100 {
            assert_eq!(node_health.on(not_asked(OPEN), &settings, now), Transition::None);
        }
        assert_eq!(node_health.health, Health::Unchecked);
        assert!(node_health.last_seen.observation().is_some(), "it keeps its role");
        let outcomes = (0..4).map(|_| node_health.on(not_asked(Signs::default()), &settings, now));
        assert_eq!(
            outcomes.last(),
            Some(Transition::Down),
            "no session is left that could show that it is up"
        );
    }

    /// The login of a monitor timed out while the pools' sessions still got answers.
    #[test]
    fn a_silent_node_is_not_down_while_its_sessions_get_answers() {
        let (settings, now) = (ReadSettings::default(), Instant::now());
        let mut node_health = NodeHealth::default();
        node_health.on(answer(now), &settings, now);
        for _ in 0..10 {
            assert_eq!(node_health.on(silent(ANSWERED), &settings, now), Transition::None);
        }
        assert_eq!(node_health.health, Health::Unchecked);
        assert_eq!(
            node_health.on(silent(OPEN), &settings, now),
            Transition::Down,
            "open, and silent like the node"
        );
        assert_eq!(node_health.on(silent(ANSWERED), &settings, now), Transition::None);
        assert_eq!(
            node_health.health,
            Health::Down,
            "its role is gone, so an answer of a session does not bring it back"
        );
    }
}
