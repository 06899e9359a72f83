//! Runs any number of schedules: see `scripts/simulate`.

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
use self::run::run;
use self::schedule::Schedule;
use self::shrink::shrink;

const USAGE: &str = "usage: scripts/simulate [--seeds N] [--from S] [--shrink S] [--broken]";

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut seeds, mut from) = (1_000, 0);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|number| number.parse().ok()).expect(USAGE);
        match argument.as_str() {
            "--seeds" => seeds = number(),
            "--from" => from = number(),
            "--shrink" => return explain(number()),
            "--broken" => return find_defects(),
            _ => panic!("{USAGE}"),
        }
    }
    let campaign = Campaign::run(from, seeds, None, false);
    println!(
        "{} schedules in {:.1} s, {:.1} a second; {} operations, {} writes acknowledged, {} unknown, {} failed; healthy \
         after at most {} ms",
        campaign.runs,
        campaign.took.as_secs_f64(),
        campaign.rate(),
        campaign.operations,
        campaign.written,
        campaign.unknown,
        campaign.failed,
        campaign.healthy_after,
    );
    for (seed, violation) in &campaign.violations {
        println!("seed {seed}: {violation}");
    }
    if let Some((seed, _)) = campaign.violations.first() {
        explain(*seed);
        std::process::exit(1);
    }
}

/// Prints the shortest schedule that still fails like the one of a seed.
fn explain(seed: u64) {
    let schedule = Schedule::draw(seed);
    match run(&schedule, None) {
        Ok(stats) => println!("seed {seed} violates nothing: {stats:?}"),
        Err(violation) => {
            let (shortest, violation) = shrink(&schedule, None, violation);
            println!("the shortest schedule that still fails:\n{shortest}    {violation}");
        }
    }
}

/// Prints how many schedules it takes to find each planted defect.
fn find_defects() {
    for (defect, _) in DEFECTS {
        let defect_name = format!("{defect:?}");
        match found_after(defect, 0) {
            Some((schedules, violation)) => println!("{defect_name:22} {schedules:4}  {}", violation.rule()),
            None => println!("{defect_name:22}    -  not found"),
        }
    }
}
