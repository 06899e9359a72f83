//! When a slow read is tried on a second node as well.
//!
//! A *hedged request* is sent again, elsewhere, when its answer takes far longer than usual, and the first answer
//! wins. It cuts the tail of the latency for little more load, as long as it is held to a budget: when everything is
//! slow, second requests would only make it slower.
//!
//! Source: J. Dean, L. A. Barroso, "The Tail at Scale", Communications of the ACM 56(2), 2013.

use std::time::Duration;

use super::budget::{Budget, Limits};
use crate::config::ReadSettings;

/// Multiple of its node's 99th percentile from which an answer takes "far longer" than usual.
const FAR_LONGER: f64 = 1.5;

/// Multiple of the shortest wait that is waited while there is no percentile yet.
const WITHOUT_PERCENTILE: u32 = 4;

/// How long to wait for an answer before a second node is tried.
pub(super) fn delay(settings: &ReadSettings, p99: Option<Duration>) -> Duration {
    let usual = p99.map_or(settings.hedge_min_delay * WITHOUT_PERCENTILE, |p99| p99.mul_f64(FAR_LONGER));
    usual.max(settings.hedge_min_delay)
}

/// Each read pays in its share of a second try.
///
/// What there is at the start lets the first hang not be waited out. A node that hangs holds up to a pool of reads at once,
/// and each wants a second try: that is what can be saved.
const LIMITS: Limits = Limits { start: 20, most: 100 };

/// Makes the budget for second tries.
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
