//! `pointsman status`.

use std::path::Path;

use anyhow::Context;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use pointsman::health::{NodeReport, Status};
use pointsman::payments::http::Health;

use super::failure::{Failure, Outcome};
use super::servers;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Prints one JSON object: the document of `/health`.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(file: Option<&Path>, arguments: Arguments) -> Outcome {
    let set = servers::connect(file).await?;
    let health = Health::of(set.health());
    servers::close(&set).await;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&health).context("the report cannot be written")?);
    } else {
        println!("{}", table(&health));
    }
    // For scripts: without a primary, the state is an error.
    if matches!(health.status, Status::Unhealthy | Status::Stale) { Err(Failure::Told) } else { Ok(()) }
}

const COLUMNS: [&str; 8] = ["NODE", "ADDRESS", "ROLE", "HEALTH", "SERVES", "LAG", "TIMELINE", "POSITION"];

fn table(health: &Health) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(COLUMNS);
    for node in &health.nodes {
        table.add_row(row(node));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for numbers in [5, 6] {
        if let Some(column) = table.column_mut(numbers) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = table.trim_fmt();
    let status = match health.status {
        Status::Healthy => "healthy",
        Status::Degraded => "degraded: a node is missing, behind or fenced",
        Status::Stale => "stale: the monitors stand still, so nothing is known",
        _ => "unhealthy: nothing can be written",
    };
    text.push_str(&format!("\n\n{status}"));
    if health.reads_on_primary_only && health.status != Status::Unhealthy {
        text.push_str("; the primary serves all reads");
    }
    if let Some(error) = health.memory.as_ref().and_then(|memory| memory.error.as_ref()) {
        text.push_str(&format!("\nthe memory file: {error}"));
    }
    for node in &health.nodes {
        if let Some(reason) = &node.status.reason {
            text.push_str(&format!("\n{}: {reason}", node.status.name));
        }
    }
    text
}

fn row(node: &NodeReport) -> [String; 8] {
    let status = &node.status;
    let serves = match (status.serves_reads, status.serves_writes) {
        (true, true) => "reads, writes",
        (true, false) => "reads",
        (false, true) => "writes",
        (false, false) => "-",
    };
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let lag = status.lag.map(|lag| match (lag.time, lag.bytes) {
        (Some(time), _) => format!("{} ms", time.as_millis()),
        (None, Some(bytes)) => format!("{bytes} bytes"),
        (None, None) => "unknown".to_owned(),
    });
    [
        status.name.clone(),
        status.address.clone(),
        status.role.to_string(),
        status.health.to_string(),
        serves.to_owned(),
        or_dash(lag),
        or_dash(status.timeline.map(|timeline| timeline.to_string())),
        or_dash(status.position.map(|position| position.to_string())),
    ]
}
