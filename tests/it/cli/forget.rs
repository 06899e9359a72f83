//! The operator's command to a running service.

use crate::support::start_cluster;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use super::{folder, on, program, run};

/// The highest timeline was for ever: after a mistaken promotion whose server never came back, only a restart helped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_service_forgets_a_timeline_by_the_operators_command() {
    let cluster = start_cluster(1).await;
    let folder = folder();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let mut child = on(&cluster, program(&folder, &serve)).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut address = async |words: &str| loop {
        let line = timeout(Duration::from_secs(30), log.next_line()).await.expect("it starts").unwrap();
        let line = line.expect("it goes on");
        if let Some((_, address)) = line.split_once(words) {
            break address.trim().to_owned();
        }
    };
    let (service, admin) = (address("listening on ").await, address("commands are taken on ").await);
    tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
    let health =
        async || -> Value { reqwest::get(format!("{service}/health")).await.unwrap().json().await.unwrap() };
    let until = async |node: usize, role: &str| {
        let seen = async || while health().await["nodes"][node]["role"] != role {};
        timeout(Duration::from_secs(30), seen()).await.expect("it is seen so");
    };
    until(0, "primary").await;
    cluster.replica(0).promote().await.unwrap();
    until(1, "primary").await;
    cluster.replica(0).stop().await.unwrap();
    until(0, "stale_primary").await;
    until(1, "unknown").await;

    // A page in a browser of the same machine cannot send it, and the service's public port does not have it.
    let client = reqwest::Client::new();
    let refused = client.post(format!("{admin}/admin/forget-history")).send().await.unwrap();
    assert_eq!(refused.status(), 403);
    let unknown = client.post(format!("{service}/admin/forget-history")).send().await.unwrap();
    assert_eq!(unknown.status(), 404);
    assert_eq!(health().await["nodes"][0]["role"], "stale_primary");

    let admin = admin.trim_start_matches("http://");
    let forgotten = run(program(&folder, &["forget-history", "--admin", admin])).await;
    assert_eq!(forgotten.code, Some(0), "{} {}", forgotten.out, forgotten.err);
    assert!(forgotten.out.contains("primary") && forgotten.out.contains("forgotten"), "{}", forgotten.out);
    assert_eq!(health().await["primary"]["state"], "one");
}

#[tokio::test]
async fn operators_commands_are_taken_on_loopback_alone() {
    let folder = folder();
    let refused = run(program(&folder, &["serve", "--admin", "0.0.0.0:3001"])).await;
    assert_eq!(refused.code, Some(2), "{}", refused.err);
    assert!(refused.err.contains("loopback"), "{}", refused.err);
    let no_service = run(program(&folder, &["forget-history", "--admin", "127.0.0.1:1"])).await;
    assert_eq!(no_service.code, Some(1), "{}", no_service.err);
    assert!(no_service.err.contains("serve --admin 127.0.0.1:1"), "{}", no_service.err);
}
