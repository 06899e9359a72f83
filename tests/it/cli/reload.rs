//! SIGHUP: the program reads its configuration again, the files of secrets included.

use crate::support::start_cluster;
use pointsman::testkit::wait::until;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pointsman::testkit::Server;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{folder, program};

/// `pointsman serve` as a process, with its log.
struct Program {
    child: Child,
    log: watch::Receiver<String>,
    address: String,
}

impl Program {
    async fn serve(folder: &tempfile::TempDir, env: &[(&str, &str)]) -> Self {
        let mut command = program(folder, &["serve", "--listen", "127.0.0.1:0", "--migrate"]);
        command.envs(env.iter().copied());
        // A test that stalls for a moment is no outage.
        command.env("POINTSMAN_PROBE__TIMEOUT", "5s");
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = watch::channel(String::new());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                sender.send_modify(|log| {
                    log.push_str(&line);
                    log.push('\n');
                });
            }
        });
        let mut program = Self { child, log, address: String::new() };
        let log = program.logged("listening on ").await;
        let address = log.split_once("listening on ").expect("an address").1;
        program.address = address.lines().next().unwrap().trim().to_owned();
        program
    }

    /// Waits until the log has these words, and returns all of it.
    async fn logged(&mut self, words: &str) -> String {
        let seen = timeout(Duration::from_secs(30), self.log.wait_for(|log| log.contains(words))).await;
        let seen = seen.is_ok_and(|seen| seen.is_ok());
        let log = self.log.borrow().clone();
        assert!(seen, "`{words}` is not in the log: {log}");
        log
    }

    fn reload(&self) {
        let pid = Pid::from_raw(self.child.id().expect("it runs").cast_signed());
        kill(pid, Signal::SIGHUP).unwrap();
    }
}

/// One reading user and one writing user, each with one request at a time.
struct Users {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<Vec<String>>>,
    done: Arc<[AtomicU64; 2]>,
}

impl Users {
    fn of(program: &Program) -> Self {
        let (stop, done) = (CancellationToken::new(), Arc::new([const { AtomicU64::new(0) }; 2]));
        let user = |writes: bool| {
            let (stop, done, address) = (stop.clone(), Arc::clone(&done), program.address.clone());
            tokio::spawn(async move {
                let (client, mut failed) = (reqwest::Client::new(), Vec::new());
                for id in 0_u64.. {
                    if stop.is_cancelled() {
                        break;
                    }
                    let request = if writes {
                        client.post(format!("{address}/transactions")).json(&json!({
                            "provider": "acme", "provider_id": id.to_string(), "account": "a", "kind": "deposit",
                            "amount": "1", "asset": "EUR",
                        }))
                    } else {
                        client.get(format!("{address}/accounts/a/balances"))
                    };
                    let answer = request.send().await.unwrap();
                    if !answer.status().is_success() {
                        failed.push(answer.text().await.unwrap());
                    }
                    done[usize::from(writes)].fetch_add(1, Ordering::Relaxed);
                }
                failed
            })
        };
        let tasks = vec![user(false), user(true)];
        Self { stop, tasks, done }
    }

    /// Waits until each user was answered some more times.
    async fn go_on(&self) {
        let count = || [0, 1].map(|user| self.done[user].load(Ordering::Relaxed));
        let before = count();
        until("the users go on", async || count().iter().zip(before).all(|(now, before)| now - before >= 20))
            .await
            .unwrap();
    }

    /// Ends them; returns the number of writes, and the failures.
    async fn stop(self) -> (u64, Vec<String>) {
        self.stop.cancel();
        let mut failed = Vec::new();
        for task in self.tasks {
            failed.extend(task.await.unwrap());
        }
        (self.done[1].load(Ordering::Relaxed), failed)
    }
}

/// The URL without its password, and the password.
fn without_password(url: &str) -> (String, String) {
    let (before, after) = url.split_once('@').unwrap();
    let (user, password) = before.rsplit_once(':').unwrap();
    (format!("{user}@{after}"), password.to_owned())
}

fn write(path: &Path, text: &str) {
    // As Kubernetes does it: the new file takes the place of the old one at once.
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// Ends every session of the program at a server, those of its monitor as well.
async fn end_sessions(server: &Server) {
    let sql =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'pointsman'";
    assert_ne!(server.query_value(sql).await.unwrap(), "0");
}

async fn healthy(program: &Program) -> bool {
    let answer = reqwest::get(format!("{}/health", program.address)).await.unwrap();
    answer.json::<Value>().await.unwrap()["status"] == "healthy"
}

/// The documentation advised to rotate a password in the environment and to send SIGHUP. But no one can change the
/// environment of a running program, so new sessions were refused until a restart.
#[tokio::test]
async fn a_password_is_rotated_in_a_file_under_load_and_nothing_fails() {
    const NEW: &str = "another@secret/with?signs";
    let cluster = start_cluster(1).await;
    let folder = folder();
    let path: PathBuf = folder.path().join("password");
    let urls: Vec<_> = cluster.urls().iter().map(|url| without_password(url)).collect();
    write(&path, &format!("{}\n", urls[0].1));
    let env = [
        ("DATABASE_URL", urls[0].0.as_str()),
        ("DATABASE_REPLICA_URL", urls[1].0.as_str()),
        ("DATABASE_PASSWORD_FILE", path.to_str().unwrap()),
    ];
    let mut program = Program::serve(&folder, &env).await;
    // Until then, the replica has no tables.
    cluster.wait_caught_up().await.unwrap();
    let users = Users::of(&program);
    users.go_on().await;

    // A faulty file changes nothing.
    write(&path, "\n");
    program.reload();
    let log = program.logged("stays as it was").await;
    let fault = format!("DATABASE_PASSWORD_FILE: names {}, which is empty", path.display());
    assert!(log.contains(&fault), "{log}");
    users.go_on().await;

    cluster.primary().change_password(NEW).await.unwrap();
    cluster.wait_caught_up().await.unwrap();
    users.go_on().await;
    write(&path, &format!("{NEW}\n"));
    program.reload();
    program.logged("the nodes are reconfigured").await;
    users.go_on().await;
    let (writes, failed) = users.stop().await;
    assert!(!program.log.borrow().contains("there is no primary"), "{}", *program.log.borrow());
    assert!(failed.is_empty(), "{failed:?}: {}", *program.log.borrow());
    let there = cluster.primary().query_value("SELECT count(*) FROM transactions").await.unwrap();
    assert_eq!(there, writes.to_string());

    // Every session, also that of each monitor, now begins with the new password.
    for server in cluster.servers() {
        end_sessions(server).await;
    }
    until("all nodes serve again", async || healthy(&program).await).await.unwrap();
    let users = Users::of(&program);
    users.go_on().await;
    users.stop().await;
    until("all nodes serve", async || healthy(&program).await).await.unwrap();
    let log = program.log.borrow().clone();
    assert!(!log.contains("28P01"), "{log}");
    for secret in [&urls[0].1, NEW, "another"] {
        assert!(!log.contains(secret), "{log}");
    }
}

/// A changed `pool.max_size` rebuilt every node, so the log had "there is no primary", which is a documented alert.
#[tokio::test]
async fn a_changed_setting_at_sighup_logs_no_loss_of_the_primary() {
    let cluster = start_cluster(1).await;
    let folder = folder();
    let path = folder.path().join("pointsman.toml");
    write(&path, "[pool]\nmax_size = 4\n");
    let urls = cluster.urls();
    let env = [("DATABASE_URL", urls[0].as_str()), ("DATABASE_REPLICA_URL", urls[1].as_str())];
    let mut program = Program::serve(&folder, &env).await;
    cluster.wait_caught_up().await.unwrap();
    let users = Users::of(&program);
    users.go_on().await;
    write(&path, "[pool]\nmax_size = 6\nmax_lifetime = \"20min\"\n");
    program.reload();
    program.logged("the nodes are reconfigured").await;
    users.go_on().await;
    let (_, failed) = users.stop().await;
    let log = program.log.borrow().clone();
    assert!(failed.is_empty(), "{failed:?}: {log}");
    assert_eq!(log.matches("there is a primary").count(), 1, "{log}");
    for alert in ["there is no primary", "split brain", "is fenced", "health changed"] {
        let after = log.split("SIGHUP").nth(1).expect("it was reloaded");
        assert!(!after.contains(alert), "{alert}: {log}");
    }
}
