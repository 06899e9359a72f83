//! Decides when a listener connects again, and to which node (pure).
//!
//! A new primary gets its session at once, because notifications are missed as long as there is none. A node that has
//! just failed is dialled again by the set's backoff. A session that ended soon after it began counts as a failure, so
//! a server that ends every session is not dialled in a loop.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::{Backoff, Delays};
use crate::topology::NodeId;

/// The attempts of one listener, through all of its sessions.
#[derive(Debug)]
pub(super) struct Reconnect {
    delays: Delays,
    longest: Duration,
    /// The time at which the last session was confirmed.
    confirmed: Option<Instant>,
    /// The time since which there is no session.
    interrupted: Instant,
    /// The node that failed last, and the time from which it may be dialled again.
    failed: Option<(NodeId, Instant)>,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Connect to the primary.
    Dial,
    /// Wait until then, or until the topology changes.
    Wait {
        /// The time of the next check.
        until: Instant,
    },
}

impl Reconnect {
    pub(super) fn new(backoff: &Backoff, now: Instant) -> Self {
        let (delays, longest) = (backoff.delays(), backoff.max());
        Self { delays, longest, confirmed: None, interrupted: now, failed: None }
    }

    /// Decides what to do while this node is the primary.
    pub(super) fn step(&self, primary: Option<NodeId>, now: Instant) -> Step {
        match (primary, self.failed) {
            (None, _) => Step::Wait { until: now + self.longest },
            (Some(node), Some((failed, until))) if node == failed && now < until => Step::Wait { until },
            (Some(_), _) => Step::Dial,
        }
    }

    /// Records that no session with the node could be opened.
    pub(super) fn on_failure(&mut self, node: NodeId, now: Instant) {
        // A listener never gives up: after the schedule ends, its longest delay repeats.
        let delay = self.delays.next().unwrap_or(self.longest);
        self.failed = Some((node, now + delay));
    }

    /// Records that a session was confirmed, and returns the time without one.
    pub(super) fn on_confirmed(&mut self, now: Instant) -> Duration {
        self.confirmed = Some(now);
        now.saturating_duration_since(self.interrupted)
    }

    /// Records that the session at this node ended.
    pub(super) fn on_interrupted(&mut self, node: NodeId, now: Instant) {
        self.interrupted = now;
        let lasted = self.confirmed.take().map(|confirmed| now.saturating_duration_since(confirmed));
        if lasted.is_some_and(|lasted| lasted > self.longest) {
            self.delays.reset();
            self.failed = None;
        } else {
            self.on_failure(node, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep_until};

    use super::*;

    fn reconnect() -> Reconnect {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1)).expect("a schedule");
        Reconnect::new(&backoff, Instant::now())
    }

    /// Fails at this node for ten seconds, and returns the milliseconds of its attempts.
    async fn attempts(reconnect: &mut Reconnect, node: NodeId) -> Vec<u128> {
        let (began, mut attempts) = (Instant::now(), Vec::new());
        while began.elapsed() < Duration::from_secs(4) {
            match reconnect.step(Some(node), Instant::now()) {
                Step::Dial => {
                    attempts.push(began.elapsed().as_millis());
                    reconnect.on_failure(node, Instant::now());
                }
                Step::Wait { until } => sleep_until(until).await,
            }
        }
        attempts
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_fails_is_asked_by_the_backoff_and_for_ever() {
        let mut reconnect = reconnect();
        let attempts = attempts(&mut reconnect, NodeId::next()).await;
        assert_eq!(attempts, [0, 100, 300, 700, 1500, 2500, 3500]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_primary_it_waits_and_a_new_one_is_asked_at_once() {
        let (old, new) = (NodeId::next(), NodeId::next());
        let mut reconnect = reconnect();
        attempts(&mut reconnect, old).await;
        let now = Instant::now();
        assert_eq!(reconnect.step(None, now), Step::Wait { until: now + Duration::from_secs(1) });
        reconnect.on_failure(old, now);
        assert!(matches!(reconnect.step(Some(old), now), Step::Wait { .. }));
        assert_eq!(reconnect.step(Some(new), now), Step::Dial);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_lasted_starts_the_schedule_over_and_a_short_one_does_not() {
        let node = NodeId::next();
        let mut reconnect = reconnect();
        advance(Duration::from_secs(3)).await;
        assert_eq!(reconnect.on_confirmed(Instant::now()), Duration::from_secs(3));
        advance(Duration::from_secs(2)).await;
        reconnect.on_interrupted(node, Instant::now());
        assert_eq!(reconnect.step(Some(node), Instant::now()), Step::Dial, "it had lasted");
        // A server that ends each session at once.
        let mut waits = Vec::new();
        for _ in 0..5 {
            reconnect.on_confirmed(Instant::now());
            let ended = Instant::now();
            reconnect.on_interrupted(node, ended);
            if let Step::Wait { until } = reconnect.step(Some(node), ended) {
                waits.push((until - ended).as_millis());
                sleep_until(until).await;
            }
        }
        assert_eq!(waits, [100, 200, 400, 800, 1000]);
    }
}
