//! The program itself, as its users start it.

mod forget;
mod reload;

use crate::support::start_cluster;
use std::process::Stdio;
use std::time::Duration;

use pointsman::testkit::Cluster;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::replay::ledger;

/// The program in an empty folder, without the tests' environment variables that configure it.
fn program(folder: &tempfile::TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("POINTSMAN_") && name != "POINTSMAN_TESTKIT_USER"
            || name.starts_with("DATABASE_")
            || name == "RUST_LOG"
        {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(folder).kill_on_drop(true).stdin(Stdio::null());
    command
}

fn on(cluster: &Cluster, mut command: Command) -> Command {
    let urls = cluster.urls();
    command.env("DATABASE_URL", &urls[0]).env("DATABASE_REPLICA_URL", urls[1..].join(","));
    command
}

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

async fn run(mut command: Command) -> Ended {
    let output = timeout(Duration::from_secs(60), command.output()).await.expect("it ends").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn all_issues_of_the_configuration_are_reported_with_exit_code_2() {
    let folder = folder();
    let mut command = program(&folder, &["status"]);
    command.env("DATABASE_URL", "postgres://app:hunter2@db:99999/app").env("POINTSMAN_POOL__MAX_SIZ", "20");
    let ended = run(command).await;
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(
        ended.err.contains("DATABASE_URL") && ended.err.contains("POINTSMAN_POOL__MAX_SIZE"),
        "{}",
        ended.err
    );
    assert!(!ended.err.contains("hunter2"));
    assert_eq!(run(program(&folder, &["status"])).await.code, Some(2), "nothing is configured");
    assert_eq!(run(program(&folder, &["replay"])).await.code, Some(2), "the file is missing");

    // The error for a missing named file did not show its path.
    let ended = run(program(&folder, &["config", "--config", "/nope/pointsman.toml", "check"])).await;
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(ended.err.contains("/nope/pointsman.toml"), "{}", ended.err);
    let mut command = program(&folder, &["config", "check"]);
    command.env("POINTSMAN_CONFIG", "/nope/pointsman.toml");
    let ended = run(command).await;
    assert!(ended.err.contains("POINTSMAN_CONFIG: names /nope/pointsman.toml"), "{}", ended.err);

    let mut command = program(&folder, &["config", "show"]);
    command.env("DATABASE_URL", "postgres://app:hunter2@db/app");
    let ended = run(command).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(!ended.out.contains("hunter2") && ended.out.contains("max_size"), "{}", ended.out);
}

#[tokio::test]
async fn migrate_replay_and_status_on_configured_servers() {
    let cluster = start_cluster(1).await;
    let folder = folder();
    let migrated = run(on(&cluster, program(&folder, &["migrate"]))).await;
    assert_eq!((migrated.code, migrated.out.starts_with("applied ")), (Some(0), true), "{}", migrated.err);
    let again = run(on(&cluster, program(&folder, &["migrate"]))).await;
    assert_eq!(again.out, "nothing to apply: the tables are up to date\n");

    let file = folder.path().join("ledger.csv");
    std::fs::write(&file, ledger().replacen("deposit", "gift", 1)).unwrap();
    let malformed = run(on(&cluster, program(&folder, &["replay", "ledger.csv"]))).await;
    assert_eq!(malformed.code, Some(1));
    assert!(malformed.err.contains("line 2: kind: "), "{}", malformed.err);
    assert_eq!(cluster.primary().query_value("SELECT count(*) FROM transactions").await.unwrap(), "0");

    std::fs::write(&file, ledger()).unwrap();
    let replayed = run(on(&cluster, program(&folder, &["replay", "ledger.csv", "--json"]))).await;
    assert_eq!(replayed.code, Some(0), "{}", replayed.err);
    let report: Value = serde_json::from_str(&replayed.out).unwrap();
    assert_eq!(
        (&report["lines"], &report["accounts"], &report["differences"]),
        (&120.into(), &12.into(), &0.into())
    );
    assert!(report["lines_per_second"].as_f64().is_some_and(|rate| rate > 0.0));
    assert_eq!((&report["stale_reads"], &report["with_tokens"]), (&0.into(), &true.into()));
    assert_eq!(report["replica_reads"].as_u64().unwrap() + report["primary_reads"].as_u64().unwrap(), 120);
    let waits = ["wait_p50_ms", "wait_p99_ms", "wait_max_ms"].map(|key| report[key].as_f64().unwrap());
    assert!(waits.is_sorted() && report["waited_reads"].is_u64(), "{report}");

    // The servers are not the replay's own, so it must not delay or kill them.
    for [option, value] in [["--replay-delay", "200ms"], ["--fault", "kill-replica"]] {
        let refused = run(on(&cluster, program(&folder, &["replay", "ledger.csv", option, value]))).await;
        assert_eq!(refused.code, Some(2), "{}", refused.err);
        assert!(refused.err.contains(option) && refused.err.contains("DATABASE_URL"), "{}", refused.err);
    }

    cluster.wait_caught_up().await.unwrap();
    let status = run(on(&cluster, program(&folder, &["status"]))).await;
    assert_eq!(status.code, Some(0), "{}", status.err);
    assert!(
        status.out.contains("NODE") && status.out.contains("replica") && status.out.contains("healthy"),
        "{}",
        status.out
    );
    cluster.primary().stop().await.unwrap();
    let status = run(on(&cluster, program(&folder, &["status", "--json"]))).await;
    assert_eq!(status.code, Some(1), "without a primary");
    assert_eq!(serde_json::from_str::<Value>(&status.out).unwrap()["status"], "unhealthy");
}

#[tokio::test]
async fn a_standby_is_not_migrated() {
    let cluster = start_cluster(1).await;
    let folder = folder();
    let mut command = program(&folder, &["migrate"]);
    command.env("DATABASE_URL", cluster.replica(0).url()).env("POINTSMAN_WRITES__FAILOVER_WAIT", "300ms");
    let ended = run(command).await;
    assert_eq!(ended.code, Some(1), "{}", ended.out);
    assert!(ended.err.contains("no primary"), "{}", ended.err);
}

#[tokio::test]
async fn a_replay_without_servers_brings_its_own_and_removes_them() {
    let folder = folder();
    std::fs::write(folder.path().join("ledger.csv"), ledger()).unwrap();
    let ended = run(program(&folder, &["replay", "ledger.csv"])).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(
        ended.out.contains("from the replicas") && ended.out.ends_with("no difference\n"),
        "{}",
        ended.out
    );
    let arguments = ["replay", "ledger.csv", "--replay-delay", "200ms", "--without-tokens", "--json"];
    let ended = run(program(&folder, &arguments)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let report: Value = serde_json::from_str(&ended.out).unwrap();
    assert!(report["stale_reads"].as_u64().unwrap() > 0, "{report}");
}

#[tokio::test]
async fn a_replay_on_a_temporary_cluster_goes_on_when_a_replica_stands_still_or_dies() {
    let folder = folder();
    std::fs::write(folder.path().join("ledger.csv"), ledger()).unwrap();
    for fault in ["pause-replay", "kill-replica"] {
        let mut command = program(&folder, &["replay", "ledger.csv", "--json", "--fault", fault]);
        command.env("RUST_LOG", "info");
        let ended = run(command).await;
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        assert!(ended.err.contains("half of the lines are recorded"), "{}", ended.err);
        let report: Value = serde_json::from_str(&ended.out).unwrap();
        let counts = ["recorded", "stale_reads", "differences"].map(|key| report[key].as_u64());
        assert_eq!(counts, [Some(120), Some(0), Some(0)], "{fault}: {report}");
    }
}

#[tokio::test]
async fn the_service_finishes_at_sigterm_and_serves_until_then() {
    let cluster = start_cluster(1).await;
    let folder = folder();
    let mut command = on(&cluster, program(&folder, &["serve", "--listen", "127.0.0.1:0", "--migrate"]));
    // Requests are logged at `debug`.
    command.env("RUST_LOG", "pointsman=debug");
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut seen = String::new();
    let address = loop {
        let line = timeout(Duration::from_secs(30), log.next_line()).await.expect("it starts").unwrap();
        let line = line.unwrap_or_else(|| panic!("it ended early: {seen}"));
        if let Some((_, address)) = line.split_once("listening on ") {
            break address.trim().to_owned();
        }
        seen += &line;
    };
    assert!(!seen.contains("open-sesame"), "{seen}");
    let rest = tokio::spawn(async move {
        let mut rest = String::new();
        while let Ok(Some(line)) = log.next_line().await {
            rest += &line;
            rest.push('\n');
        }
        rest
    });
    let health: Value = reqwest::get(format!("{address}/health")).await.unwrap().json().await.unwrap();
    assert_eq!((&health["db_primary"], &health["db_replica"]), (&"connected".into(), &"connected".into()));
    let page = reqwest::get(format!("{address}/")).await.unwrap().text().await.unwrap();
    assert!(page.contains("<title>Pointsman</title>"));

    // A request that waits for a lock is in flight when the shutdown is requested.
    let client = reqwest::Client::new();
    let (admin, connection) =
        tokio_postgres::connect(&cluster.primary().url(), tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    admin.batch_execute("BEGIN; LOCK TABLE transactions").await.unwrap();
    let body = serde_json::json!({ "provider": "acme", "provider_id": "1", "account": "a", "kind": "deposit", "amount": "1", "asset": "EUR" });
    let request = tokio::spawn(client.post(format!("{address}/transactions")).json(&body).send());
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    while cluster.primary().query_value(waits).await.unwrap() == "0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let pid = nix::unistd::Pid::from_raw(child.id().unwrap().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    timeout(Duration::from_secs(20), async {
        while reqwest::get(format!("{address}/live")).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it accepts nothing more");
    admin.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(request.await.unwrap().unwrap().status(), 201, "what was in flight was finished");
    let ended = timeout(Duration::from_secs(20), child.wait()).await.expect("it ends").unwrap();
    assert_eq!(ended.code(), Some(0));
    let rest = rest.await.unwrap();
    assert!(rest.contains("SIGTERM") && rest.contains("POST"), "{rest}");
    drop(admin);
    let _ = connection.await;
}
