//! Counts Pointsman's allocations, side by side with those of a program without it.
//!
//! usage: `cargo bench --features testkit --bench allocations`
//!
//! The counts are exact and the same on every machine. Of several runs the smallest one counts, because a monitor
//! probed its node during the others. Numbers: `docs/benchmarks.md`.

use std::alloc::System;

use diesel::prelude::*;
use diesel_async::pooled_connection::RecyclingMethod;
use diesel_async::{AsyncConnection, AsyncPgConnection};
use setup::{Result, User, users};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[path = "overhead/setup.rs"]
mod setup;

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const RUNS: usize = 20;
const TIMES: usize = 20;

/// Prints the number of allocations of an expression, and their bytes.
macro_rules! count {
    ($name:expr, $operation:expr) => {{
        let mut least = (usize::MAX, usize::MAX);
        for _ in 0..RUNS {
            let region = Region::new(COUNTED);
            for _ in 0..TIMES {
                $operation;
            }
            let change = region.change();
            least = least
                .min(((change.allocations + change.reallocations) / TIMES, change.bytes_allocated / TIMES));
        }
        println!("{:<50} {:>5} allocations, {:>6} bytes", $name, least.0, least.1);
    }};
}

// One thread, so that the server's answers are not read while something else is counted.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let cluster = setup::cluster().await?;
    let replica = &cluster.urls()[1];
    let pool = setup::bb8(replica, RecyclingMethod::Fast).await?;
    let (one, two) = (setup::set(&cluster, 1).await?, setup::set(&cluster, 2).await?);
    count!("checkout: bb8, RecyclingMethod::Fast", pool.get().await?);
    count!("checkout: read(), one replica", one.read().await?);
    count!("checkout: read(), two replicas", two.read().await?);
    count!("checkout: write()", one.write().await?);
    let none = || async |_: &mut _| Ok::<_, pointsman::Error>(());
    count!("checkout: run_read(), one replica", one.run_read(none()).await?);

    let mut bare = AsyncPgConnection::establish(replica).await?;
    let conn = one.read().await?;
    count!("one row: bare AsyncPgConnection", {
        diesel_async::RunQueryDsl::first::<User>(users::table.find(1), &mut bare).await?
    });
    count!("one row: Conn<Read>", {
        pointsman::RunQueryDsl::first::<User>(users::table.find(1), &conn).await?
    });
    count!("1000 rows: bare AsyncPgConnection", {
        diesel_async::RunQueryDsl::load::<User>(users::table, &mut bare).await?
    });
    count!("1000 rows: Conn<Read>", pointsman::RunQueryDsl::load::<User>(users::table, &conn).await?);
    Ok(())
}
