//! The load that runs through an incident, and its report.

use std::time::Duration;

use pointsman::prelude::*;
use pointsman::testkit::{Effects, Load, LoadReport, Server, WriteOutcome};
use pointsman::{Error, ReplicaSet, WriteOptions};

use crate::fixture::{acks, write_row};
use crate::test_error::TestResult;

const READS_PER_SECOND: u32 = 500;
const WRITES_PER_SECOND: u32 = 100;

/// Opens the connections that a steady load would have opened long ago.
pub(crate) async fn warm_up(set: &ReplicaSet) {
    for _ in 0..20 {
        let reads = futures_util::future::join_all((0..20).map(|_| read_surely(set)));
        let writes = futures_util::future::join_all((0..5).map(|_| set.write()));
        let (reads, writes) = tokio::join!(reads, writes);
        assert!(
            reads.iter().all(Result::is_ok) && writes.iter().all(Result::is_ok),
            "all is well before the incident"
        );
    }
}

/// Reads through `run_read`, writes through `run_write`.
pub(crate) fn start_load(set: &ReplicaSet) -> Load {
    start_load_with(set, false)
}

/// Reads through a plain `read()`, which is not repeated.
pub(crate) fn start_plain_load(set: &ReplicaSet) -> Load {
    start_load_with(set, true)
}

fn start_load_with(set: &ReplicaSet, plain: bool) -> Load {
    let (reader, writer) = (set.clone(), set.clone());
    let read = move |_| {
        let set = reader.clone();
        async move {
            let outcome = if plain { read_once(&set).await } else { read_surely(&set).await };
            outcome.map(drop).map_err(|error| format!("{error}: {error:?}"))
        }
    };
    let write = move |id: u64| {
        let set = writer.clone();
        async move { WriteOutcome::of(write_row(&set, i64::try_from(id).expect("a small number")).await) }
    };
    Load::start(READS_PER_SECOND, WRITES_PER_SECOND, read, write)
}

/// Reads through `run_read`; each write takes effect once, on a table without a key.
pub(crate) fn start_load_once(set: &ReplicaSet) -> Load {
    let (reader, writer) = (set.clone(), set.clone());
    let read = move |_| {
        let set = reader.clone();
        async move { read_surely(&set).await.map(drop).map_err(|error| format!("{error}: {error:?}")) }
    };
    let write = move |id: u64| {
        let set = writer.clone();
        async move {
            let insert = format!("INSERT INTO effects VALUES ({id})");
            let write = set.run_write_with(&WriteOptions::new().exactly_once(), async |tx| {
                diesel::sql_query(insert.as_str()).execute(tx).await
            });
            WriteOutcome::of(write.await)
        }
    };
    Load::start(READS_PER_SECOND, WRITES_PER_SECOND, read, write)
}

/// Compares the writes with the rows of a server.
pub(crate) async fn effects_on(server: &Server, report: &LoadReport) -> TestResult<Effects> {
    let ids = server.query_value("SELECT coalesce(string_agg(id::text, ','), '') FROM effects").await?;
    Ok(report.effects(ids.split(',').filter_map(|id| id.parse().ok())))
}

async fn read_surely(set: &ReplicaSet) -> Result<Option<i64>, Error> {
    set.run_read(async |conn| Ok(acks::table.select(acks::id).first(conn).await.optional()?)).await
}

async fn read_once(set: &ReplicaSet) -> Result<Option<i64>, Error> {
    let conn = set.read().await?;
    Ok(acks::table.select(acks::id).first(&conn).await.optional()?)
}

/// Returns the acknowledged writes that are not on a server.
pub(crate) async fn lost_on(server: &Server, report: &LoadReport) -> TestResult<Vec<u64>> {
    let ids = server.query_value("SELECT coalesce(string_agg(id::text, ','), '') FROM acks").await?;
    Ok(report.effects(ids.split(',').filter_map(|id| id.parse().ok())).lost)
}

/// Prints the measurements.
pub(crate) fn print_report(incident: &str, report: &LoadReport) {
    println!("{incident}: {report}");
    for read in report.reads.iter().filter(|read| read.took() > Duration::from_millis(150)) {
        tracing::debug!(id = read.id, took = ?read.took(), ago = ?read.began.elapsed(), "a slow read");
    }
}
