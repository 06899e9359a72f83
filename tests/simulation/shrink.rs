//! The shortest schedule that still fails: delta debugging over the events.
//!
//! Reference: A. Zeller and R. Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE TSE, 2002.

use pointsman::testkit::simulation::Defect;

use crate::run::{Violation, run};
use crate::schedule::Schedule;

/// Runs that a search may take.
const RUNS: usize = 600;

/// Removes events as long as the schedule violates the same rule; returns the rest with its violation.
pub(crate) fn shrink(
    schedule: &Schedule,
    defect: Option<Defect>,
    violation: Violation,
) -> (Schedule, Violation) {
    let mut shortest = (schedule.clone(), violation);
    let (mut runs, mut parts) = (0, 2);
    while parts <= shortest.0.events.len().max(2) && runs < RUNS {
        let length = shortest.0.events.len();
        let size = length.div_ceil(parts).max(1);
        let shorter = (0..length).step_by(size).find_map(|start| {
            runs += 1;
            let mut without = shortest.0.clone();
            without.events.drain(start..(start + size).min(length));
            let violation = run(&without, defect).err()?;
            (violation.rule() == shortest.1.rule()).then_some((without, violation))
        });
        match shorter {
            Some(shorter) => {
                shortest = shorter;
                parts = parts.saturating_sub(1).max(2);
            }
            None if size == 1 => break,
            None => parts *= 2,
        }
    }
    shortest
}
