//! A whole set in one thread and paused time, against simulated servers and faults: thousands of orders of events.
//!
//! * `schedule`: the faults and operations of a run, drawn from a seed
//! * `faults`, `operations`: what happens to the cluster, and what the users do
//! * `server`, `network`: the simulated servers, and the streams to them
//! * `observer`: what the set has shown
//! * `run`: one run; `checker`: what it must not violate (pure)
//! * `defects`: faults of the set that are planted on purpose, and must be found
//! * `campaign`: many runs; `shrink`: the shortest schedule that still fails; `simulate`: the program for any number of them

mod campaign;
mod checker;
mod defects;
mod faults;
mod network;
mod observer;
mod operations;
mod run;
mod schedule;
mod server;
mod shrink;

use self::campaign::Campaign;
use self::defects::{DEFECTS, found_after};
use self::schedule::Schedule;
use self::shrink::shrink;

/// Schedules of the test; `scripts/simulate` runs any number.
const SEEDS: u64 = 100;

#[test]
fn no_schedule_violates_a_rule() {
    let campaign = Campaign::run(0, SEEDS, None, true);
    println!("{} schedules, {:.1} a second", campaign.runs, campaign.rate());
    if let Some((seed, violation)) = campaign.violations.into_iter().next() {
        let (shortest, violation) = shrink(&Schedule::draw(seed), None, violation);
        panic!("seed {seed}: the shortest schedule that still fails:\n{shortest}    {violation}");
    }
}

#[test]
fn each_planted_defect_is_found() {
    for (defect, from) in DEFECTS {
        let found = found_after(defect, from);
        let (schedules, violation) = found.unwrap_or_else(|| panic!("{defect:?} is not found"));
        println!("{defect:?}: found after {schedules} schedules from seed {from} on: {}", violation.rule());
    }
}
