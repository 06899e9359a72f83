//! `pointsman forget-history`.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use pointsman::payments::http::ADMIN_HEADER;
use serde_json::Value;

use super::failure::{Failure, Outcome};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The address that the service was given with `serve --admin`.
    #[arg(long, value_name = "ADDRESS")]
    admin: SocketAddr,
}

/// Longer than the service waits for its nodes.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let url = format!("http://{}/admin/forget-history", arguments.admin);
    let client = reqwest::Client::builder().timeout(LIMIT).build().context("no client can be made")?;
    let answer =
        client.post(&url).header(ADMIN_HEADER, "forget-history").send().await.with_context(|| {
            format!("no service answers on {}: start it with `serve --admin {0}`", arguments.admin)
        })?;
    let status = answer.status();
    let text = answer.text().await.context("the answer broke off")?;
    if !status.is_success() {
        return Err(Failure::failed(anyhow::anyhow!("the service answered {status}: {text}")));
    }
    let health: Value = serde_json::from_str(&text).context("the answer is no report of health")?;
    println!("The history is forgotten. Primary: {}; status: {}", health["primary"], health["status"]);
    for node in health["nodes"].as_array().into_iter().flatten() {
        let word = |key: &str| node[key].as_str().unwrap_or("-").to_owned();
        println!("{}: {}, {} {}", word("name"), word("role"), word("health"), word("reason"));
    }
    // For scripts, as in `status`: without a primary, the state is still an error.
    if health["status"] == "unhealthy" { Err(Failure::Told) } else { Ok(()) }
}
