//! What Pointsman costs, side by side with what a program would use without it.
//!
//! usage: `cargo bench --features testkit --bench overhead -- [--rounds N] [--only TEXT] [--json]`
//!
//! Without `--bench`, which `cargo bench` adds, every case runs once, to show that it still does. Method and numbers:
//! `docs/benchmarks.md`.

use measure::Measured;
use setup::Result;

mod cases;
mod measure;
mod setup;

/// Enough for an interval of about one per cent on a quiet machine.
const ROUNDS: usize = 300;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut rounds, mut only, mut json) = (1, String::new(), false);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => rounds = rounds.max(ROUNDS),
            "--rounds" => rounds = arguments.next().ok_or("--rounds needs a number")?.parse()?,
            "--only" => only = arguments.next().ok_or("--only needs a part of a case's name")?,
            "--json" => json = true,
            unknown => return Err(format!("unknown argument: {unknown}").into()),
        }
    }
    let cluster = setup::cluster().await?;
    let field = cases::Field::new(&cluster).await?;
    for case in field.cases().into_iter().filter(|case| case.name.contains(&only)) {
        let (name, measured) = (case.name.clone(), case.run(rounds).await?);
        if json {
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
        "\n{case}\n{:<29} {:>9} {:>9} {:>8} {:>6} {:>13} {:>9}",
        "", "median µs", "p99 µs", "per s", "ratio", "95 %", "p99 ratio"
    );
    for one in measured {
        let (low, high) = one.interval;
        println!(
            "{:<29} {:>9.2} {:>9.2} {:>8.0} {:>6.3} {:>13} {:>9.2}",
            one.contender,
            one.median_ns / 1e3,
            one.p99_ns / 1e3,
            one.per_second,
            one.ratio,
            format!("{low:.3}…{high:.3}"),
            one.p99_ratio
        );
    }
}
