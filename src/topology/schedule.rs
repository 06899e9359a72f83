//! When a monitor probes its node again.
//!
//! Three rules apply, because hundreds of programs may probe one server:
//!
//! * **The pauses of a search grow with its age.** A monitor notices a promotion within an eighth of the time for
//!   which the search has lasted. The pause stays between `probe.failover_interval` and `probe.interval`. A state
//!   that lasts costs no more than a healthy one.
//! * **Every pause has jitter**, the first one most of all. So programs that start or fail over together do not
//!   probe together. Jitter only shortens a pause, so the guarantees about hangs and lag hold.
//! * **Signs of trouble wake a monitor at most ten times a second**, however many connections end at once.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::config::ProbeSettings;

/// Proportion of each pause that is random.
const JITTER: f64 = 0.2;

/// Divisor of a search's age; the quotient is the pause.
const AGE_DIVISOR: u32 = 8;

/// Time after which the answer to a probe can be late.
///
/// A probe is one cheap query. This is far more than a healthy server needs, and less than a promotion takes.
const LATE_ANSWER: Duration = Duration::from_millis(50);

/// Multiple of the node's average latency from which the answer to a probe is late.
const LATE_FACTOR: u32 = 4;

/// Wakes allowed at once; with [`WAKE_REFILL`], at most ten in any second.
const WAKE_BURST: u32 = 2;

/// Time after which one more wake is allowed.
const WAKE_REFILL: Duration = Duration::from_millis(125);

/// Returns the time after which a probe's answer is late, by the node's average.
pub(crate) fn late_after(average: Option<Duration>) -> Duration {
    average.unwrap_or_default().saturating_mul(LATE_FACTOR).max(LATE_ANSWER)
}

/// The pauses of one monitor.
#[derive(Debug)]
pub(crate) struct Schedule {
    settings: ProbeSettings,
    rng: Rng,
    /// `true` after the first pause, which desynchronizes the monitors.
    begun: bool,
    /// When the granted wakes no longer count against the limit.
    wakes_until: Option<Instant>,
}

impl Schedule {
    pub(crate) fn new(settings: ProbeSettings, rng: Rng) -> Self {
        Self { settings, rng, begun: false, wakes_until: None }
    }

    /// Returns the pause after an answer, by the age of the search, if any.
    pub(crate) fn pause(&mut self, search: Option<Duration>) -> Duration {
        let (interval, fastest) = (self.settings.interval, self.settings.failover_interval);
        let pause = search.map_or(interval, |age| (age / AGE_DIVISOR).max(fastest).min(interval));
        let jitter = if std::mem::replace(&mut self.begun, true) { JITTER } else { 1.0 };
        pause.mul_f64(1.0 - jitter * self.rng.f64())
    }

    /// Returns the short, random pause before the first probe of a search.
    pub(crate) fn first_of_search(&mut self) -> Duration {
        self.settings.failover_interval.mul_f64(self.rng.f64())
    }

    /// Returns when a sign of trouble may trigger a probe.
    pub(crate) fn wake(&mut self, now: Instant) -> Instant {
        let paid = self.wakes_until.map_or(now, |until| until.max(now));
        self.wakes_until = Some(paid + WAKE_REFILL);
        let burst = WAKE_REFILL * (WAKE_BURST - 1);
        paid.checked_sub(burst).map_or(now, |at| at.max(now))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::super::search::Search;
    use super::*;

    fn schedule(seed: u64) -> Schedule {
        Schedule::new(ProbeSettings::default(), Rng::with_seed(seed))
    }

    /// Counts the probes of one minute.
    ///
    /// At each probe, `state` returns whether a search is under way, and whether something changed.
    async fn probes_in_a_minute(mut state: impl FnMut(u32) -> (bool, bool)) -> u32 {
        let (mut schedule, mut search) = (schedule(1), Search::default());
        let (began, mut probes) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(60) {
            let (is_searching, changed) = state(probes);
            let age = search.on(is_searching, changed, Instant::now()).map(|began| began.elapsed());
            probes += 1;
            sleep(schedule.pause(age)).await;
        }
        probes
    }

    /// There were 2,400 probes in every state but the first, however long it lasted.
    #[tokio::test(start_paused = true)]
    async fn a_state_that_persists_needs_few_more_probes_than_a_healthy_set() {
        let healthy = probes_in_a_minute(|_| (false, false)).await;
        assert!((150..=175).contains(&healthy), "{healthy}");
        // A full primary, a rejected login, a split brain, no primary: a search in which nothing changes.
        let searching = probes_in_a_minute(|probe| (true, probe == 0)).await;
        assert!((healthy..healthy + 40).contains(&searching), "{searching}");
        // A primary that misses every second probe.
        let flapping = probes_in_a_minute(|probe| (probe % 2 == 0, false)).await;
        assert!(flapping < healthy + 60, "{flapping}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_search_is_fast_at_first_and_again_when_something_changes() {
        let (mut schedule, mut search) = (schedule(2), Search::default());
        schedule.pause(None);
        let mut pauses = Vec::new();
        for second in 0..12_u64 {
            let age = search.on(true, second == 6, Instant::now()).map(|began| began.elapsed());
            pauses.push(schedule.pause(age).as_millis());
            sleep(Duration::from_secs(1)).await;
        }
        assert!(pauses[0] <= 25 && pauses[6] <= 25, "{pauses:?}");
        assert!((100..=125).contains(&pauses[1]) && (320..=400).contains(&pauses[5]), "{pauses:?}");
    }

    #[test]
    fn programs_that_start_together_do_not_probe_together() {
        let mut first: Vec<_> = (0..20).map(|seed| schedule(seed).pause(None).as_millis()).collect();
        first.sort_unstable();
        assert!(first[0] < 80 && first[19] > 320 && first[19] <= 400, "{first:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn signs_of_trouble_wake_a_monitor_ten_times_a_second_at_most() {
        let mut schedule = schedule(3);
        let began = Instant::now();
        let mut wakes = Vec::new();
        // A new sign comes as soon as the last one was probed.
        while began.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep_until(schedule.wake(Instant::now())).await;
            wakes.push(began.elapsed());
            sleep(Duration::from_millis(1)).await;
        }
        for (i, wake) in wakes.iter().enumerate() {
            let within =
                wakes[i..].iter().take_while(|later| **later < *wake + Duration::from_secs(1)).count();
            assert!(within <= 10, "{within} from {wake:?} on");
        }
        assert!(wakes[1] < Duration::from_millis(5), "the first ones are not kept waiting: {wakes:?}");
        assert!(wakes.len() > 35, "{}", wakes.len());
    }
}
