//! Measures Pointsman's overhead, side by side with a program without it.
//!
//! usage: `cargo bench --features testkit --bench overhead -- [--rounds N] [--only TEXT] [--json]`
//!
//! Without `--bench`, which `cargo bench` adds, every case runs once, as a check that it works. Method and numbers:
//! `docs/benchmarks.md`.

use measure::{Case, Measured};
use pointsman::testkit::Cluster;
use setup::Result;
use tokio::runtime::Builder;

mod cases;
mod measure;
mod setup;

/// Enough for an interval of about one per cent on a quiet machine.
const ROUNDS: usize = 300;

struct Options {
    rounds: usize,
    only: String,
    json: bool,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut options = Options { rounds: 1, only: String::new(), json: false };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => options.rounds = options.rounds.max(ROUNDS),
            "--rounds" => options.rounds = arguments.next().ok_or("--rounds needs a number")?.parse()?,
            "--only" => options.only = arguments.next().ok_or("--only needs a part of a case's name")?,
            "--json" => options.json = true,
            unknown => return Err(format!("unknown argument: {unknown}").into()),
        }
    }
    // With more threads, a connection whose task runs on another thread than its user costs far more, and stays there
    // for a while. That would distort the comparison. Load needs the threads.
    let one_thread = Builder::new_current_thread().enable_all().build()?;
    let threads = Builder::new_multi_thread().enable_all().build()?;
    let cluster = threads.block_on(setup::cluster())?;
    one_thread.block_on(run(&cluster, &options, |case| case.tasks == 1))?;
    threads.block_on(run(&cluster, &options, |case| case.tasks > 1))
}

async fn run(cluster: &Cluster, options: &Options, wanted: impl Fn(&Case) -> bool) -> Result<()> {
    let field = cases::Field::new(cluster).await?;
    let wanted = |case: &Case| wanted(case) && case.name.contains(&options.only);
    for case in field.cases().into_iter().filter(wanted) {
        let (name, measured) = (case.name.clone(), case.run(options.rounds).await?);
        if options.json {
            for measured in &measured {
                println!("{}", serde_json::to_string(measured)?);
            }
        } else {
            print(&name, &measured);
        }
    }
    Ok(())
}

fn print(case: &str, measured: &[Measured]) {
    println!(
        "\n{case}\n{:<29} {:>9} {:>9} {:>8} {:>8} {:>6} {:>13} {:>9}",
        "", "median µs", "p99 µs", "cpu µs", "per s", "ratio", "95 %", "p99 ratio"
    );
    for one in measured {
        let (low, high) = one.interval;
        println!(
            "{:<29} {:>9.2} {:>9.2} {:>8.2} {:>8.0} {:>6.3} {:>13} {:>9.2}",
            one.contender,
            one.median_ns / 1e3,
            one.p99_ns / 1e3,
            one.cpu_ns / 1e3,
            one.per_second,
            one.ratio,
            format!("{low:.3}…{high:.3}"),
            one.p99_ratio
        );
    }
}
