//! Decides when a slow read is also tried on a second node.
//!
//! A *hedged request* is sent again, to another node, when its answer takes far longer than usual; the first answer
//! wins. Hedging cuts tail latency for little more load, as long as a budget bounds it. When everything is slow,
//! second requests would only make it slower.
//!
//! Source: J. Dean, L. A. Barroso, "The Tail at Scale", Communications of the ACM 56(2), 2013.

use std::time::Duration;

use super::budget::{Budget, Limits};
use crate::config::ReadSettings;

/// Multiple of the node's 99th percentile from which an answer is slow.
const FAR_LONGER: f64 = 1.5;

/// Multiple of the shortest hedge delay to wait while there is no percentile yet.
const WITHOUT_PERCENTILE: u32 = 4;

/// Returns the time to wait for an answer before a second node is tried.
pub(super) fn delay(settings: &ReadSettings, p99: Option<Duration>) -> Duration {
    let usual = p99.map_or(settings.hedge_min_delay * WITHOUT_PERCENTILE, |p99| p99.mul_f64(FAR_LONGER));
    usual.max(settings.hedge_min_delay)
}

/// Each read deposits its share of a hedge.
///
/// The initial savings allow a hedge for the first node that hangs. Such a node holds up to a pool of reads at once,
/// and each needs a hedge, which sets the most that can be saved.
const LIMITS: Limits = Limits { start: 20, most: 100 };

/// Creates the budget for hedges.
pub(super) fn budget(settings: &ReadSettings) -> Budget {
    Budget::new(settings.hedge_budget, LIMITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> ReadSettings {
        ReadSettings { hedge_min_delay: Duration::from_millis(20), ..ReadSettings::default() }
    }

    #[test]
    fn the_delay_follows_the_percentile_but_has_a_floor() {
        let settings = settings();
        assert_eq!(delay(&settings, None), Duration::from_millis(80));
        assert_eq!(delay(&settings, Some(Duration::from_millis(2))), Duration::from_millis(20));
        assert_eq!(delay(&settings, Some(Duration::from_millis(200))), Duration::from_millis(300));
    }
}
