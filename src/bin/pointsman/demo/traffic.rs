//! The requests of the service's users, over HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use pointsman::testkit::{Load, LoadReport, WriteOutcome};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use super::fixture::Fixture;

/// Number of accounts that share the traffic.
const ACCOUNTS: u64 = 50;

/// Users who read balances and record transactions at a steady rate.
pub(super) struct Traffic {
    load: Load,
    seen: Arc<Seen>,
    run: String,
}

/// The results so far.
#[derive(Default)]
struct Seen {
    reads: AtomicU64,
    failed_reads: AtomicU64,
    writes: AtomicU64,
    failed_writes: AtomicU64,
}

impl Traffic {
    pub(super) fn start(fixture: &Fixture, reads_per_second: u32, writes_per_second: u32) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let run = format!("{}", since.as_micros());
        let seen = Arc::new(Seen::default());
        let (client, url) = (Client::new(), fixture.url().to_owned());
        let (reader, read_url, read_seen) = (client.clone(), url.clone(), Arc::clone(&seen));
        let read = move |id: u64| {
            let request = reader.get(format!("{read_url}/accounts/{}/balances/CZK", id % ACCOUNTS));
            let seen = Arc::clone(&read_seen);
            async move {
                let outcome = read(request).await;
                seen.reads.fetch_add(1, Ordering::Relaxed);
                seen.failed_reads.fetch_add(u64::from(outcome.is_err()), Ordering::Relaxed);
                outcome
            }
        };
        let (write_seen, write_run) = (Arc::clone(&seen), run.clone());
        let write = move |id: u64| {
            let body = json!({
                "provider": "demo", "provider_id": format!("{write_run}-{id}"),
                "account": (id % ACCOUNTS).to_string(), "kind": "deposit", "amount": "1.00", "asset": "CZK",
                "status": "completed",
            });
            let request = client.post(format!("{url}/transactions")).json(&body);
            let seen = Arc::clone(&write_seen);
            async move {
                let outcome = write(request).await;
                seen.writes.fetch_add(1, Ordering::Relaxed);
                let failed = u64::from(outcome != WriteOutcome::Acknowledged);
                seen.failed_writes.fetch_add(failed, Ordering::Relaxed);
                outcome
            }
        };
        Self { load: Load::start(reads_per_second, writes_per_second, read, write), seen, run }
    }

    /// Waits until this many more requests were answered.
    pub(super) async fn answered(&self, more: u64) {
        self.load.done(more).await;
    }

    /// Ends the traffic; returns the users' results, and the prefix of their ids.
    pub(super) async fn stop(self) -> (LoadReport, String) {
        (self.load.stop().await, self.run)
    }

    /// Returns one line: the requests so far, and the state of the nodes.
    pub(super) fn line(&self, fixture: &Fixture) -> String {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let health = fixture.set().health();
        let nodes: Vec<_> = health
            .nodes
            .iter()
            .map(|node| format!("{} {} ({} reads)", node.status.name, node.status.health, node.reads))
            .collect();
        let seen = &self.seen;
        format!(
            "{} reads, {} failed; {} writes, {} failed; {}",
            count(&seen.reads),
            count(&seen.failed_reads),
            count(&seen.writes),
            count(&seen.failed_writes),
            nodes.join(", "),
        )
    }
}

/// Time limit of a user's request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

async fn read(request: reqwest::RequestBuilder) -> Result<(), String> {
    let response = request.timeout(REQUEST_TIMEOUT).send().await.map_err(|error| error.to_string())?;
    match response.status() {
        StatusCode::OK => Ok(()),
        status => Err(format!("{status}: {}", code(response).await)),
    }
}

async fn write(request: reqwest::RequestBuilder) -> WriteOutcome {
    let response = match request.timeout(REQUEST_TIMEOUT).send().await {
        Ok(response) => response,
        Err(error) => return WriteOutcome::Unknown(error.to_string()),
    };
    match response.status() {
        StatusCode::OK | StatusCode::CREATED => WriteOutcome::Acknowledged,
        status => match code(response).await {
            code if code == "outcome_unknown" => WriteOutcome::Unknown(code),
            code => WriteOutcome::Failed(format!("{status}: {code}")),
        },
    }
}

/// Returns the service's code for a failure.
async fn code(response: reqwest::Response) -> String {
    let document: Value = response.json().await.unwrap_or_default();
    document["error"]["code"].as_str().unwrap_or("no code").to_owned()
}
