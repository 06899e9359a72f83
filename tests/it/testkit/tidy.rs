//! Nothing is left behind, however a test ends.

use super::faults::processes_in;
use crate::support::start_cluster;
use pointsman::testkit::Cluster;
use pointsman::testkit::wait::until;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The variable that tells [`victim`] which end to choose.
const ENDING: &str = "POINTSMAN_TEST_ENDING";

/// Returns the System V segments of the servers in `folder`, by the seventh line of their pid files.
fn segments(folder: &Path) -> Vec<String> {
    let nodes = std::fs::read_dir(folder).unwrap().flatten();
    let files = nodes.filter_map(|node| std::fs::read_to_string(node.path().join("postmaster.pid")).ok());
    files.filter_map(|file| Some(file.lines().nth(6)?.split_whitespace().nth(1)?.to_owned())).collect()
}

fn segment_exists(id: &str) -> bool {
    let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    table.lines().skip(1).any(|line| line.split_whitespace().nth(1) == Some(id))
}

async fn is_gone(folder: &Path, segments: &[String]) {
    until("the servers are gone", async || processes_in(folder) == 0).await.unwrap();
    until("the folder is gone", async || !folder.exists()).await.unwrap();
    assert!(!segments.iter().any(|id| segment_exists(id)), "shared memory is left");
}

/// A normal end by itself; the tests beside it run it in a process that ends in their way.
#[tokio::test]
async fn victim() {
    let cluster = start_cluster(1).await;
    cluster.primary().proxy().await.unwrap();
    println!("\nFOLDER {}", cluster.folder().display());
    match std::env::var(ENDING).as_deref() {
        Ok("panic") => panic!("as asked"),
        Ok("exit") => std::process::exit(3),
        Ok("abort") => std::process::abort(),
        Ok("wait") => std::future::pending().await,
        #[cfg(target_os = "linux")]
        Ok("wait with a paused program") => {
            let programs = pointsman::testkit::ProgramFolder::create().await.unwrap();
            programs.start("tool", "/bin/sh", &["-c", "sleep 600 & wait"]).unwrap();
            programs.pause("tool").await.unwrap();
            println!("\nFOLDER {}", programs.path().display());
            println!("\nREADY");
            std::future::pending().await
        }
        Ok("wait with a paused and a killed server") => {
            cluster.primary().kill().await.unwrap();
            cluster.replica(0).pause().await.unwrap();
            println!("\nREADY");
            std::future::pending().await
        }
        _ => {
            let folder = cluster.folder().to_owned();
            drop(cluster);
            assert!(!folder.exists());
        }
    }
}

fn victim_command(program: &Path, ending: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["--exact", "testkit::tidy::victim", "--nocapture"]);
    command.env(ENDING, ending).env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts a victim, and returns it with the folder of its cluster.
fn start_victim(command: &mut Command, until: &str) -> (Child, PathBuf) {
    let mut child = command.spawn().unwrap();
    let mut folder = None;
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        if let Some(path) = line.strip_prefix("FOLDER ") {
            folder = Some(PathBuf::from(path));
        }
        if line.starts_with(until) {
            break;
        }
    }
    let Some(folder) = folder else { panic!("the victim has no cluster: {:?}", child.wait_with_output()) };
    (child, folder)
}

#[tokio::test]
async fn dropping_a_cluster_returns_when_it_is_gone() {
    let cluster = start_cluster(1).await;
    cluster.primary().kill().await.unwrap();
    cluster.replica(0).pause().await.unwrap();
    let (folder, segments) = (cluster.folder().to_owned(), segments(cluster.folder()));
    assert!(segments.iter().all(|id| segment_exists(id)) && segments.len() == 2);
    let server = cluster.replica(0).clone();
    drop(cluster);
    assert!(!folder.exists());
    assert_eq!(processes_in(&folder), 0);
    assert!(!segments.iter().any(|id| segment_exists(id)), "shared memory is left");
    assert!(!server.is_running());
}

#[tokio::test]
async fn a_start_that_fails_or_is_given_up_leaves_nothing() {
    let mine = || {
        let prefix = format!("pointsman-{}-", std::process::id());
        let found = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten();
        found.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).count()
    };
    // Other tests of this process have folders too, so this one asks for its own process.
    if std::env::var(ENDING).as_deref() != Ok("alone") {
        let own = std::env::current_exe().unwrap();
        let mut command = Command::new(own);
        command.args(["--exact", "testkit::tidy::a_start_that_fails_or_is_given_up_leaves_nothing"]);
        let output = command.env(ENDING, "alone").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    Cluster::builder().setting("work_memory", "5MB").start().await.unwrap_err();
    assert_eq!(mine(), 0);
    for milliseconds in [1, 50, 150, 300, 500, 700] {
        let start = Cluster::builder().replicas(1).start();
        let _ = tokio::time::timeout(std::time::Duration::from_millis(milliseconds), start).await;
    }
    until("no folder is left", async || mine() == 0).await.unwrap();
}

#[tokio::test]
async fn a_test_that_panics_exits_or_aborts_leaves_nothing() {
    let own = std::env::current_exe().unwrap();
    for ending in ["panic", "exit", "abort"] {
        let (mut child, folder) = start_victim(&mut victim_command(&own, ending), "FOLDER");
        assert!(!child.wait().unwrap().success());
        is_gone(&folder, &[]).await;
    }
}

#[tokio::test]
async fn a_test_that_is_killed_leaves_nothing() {
    let own = std::env::current_exe().unwrap();
    let (mut child, folder) = start_victim(&mut victim_command(&own, "wait"), "FOLDER");
    assert!(processes_in(&folder) > 5);
    let segments = segments(&folder);
    child.kill().unwrap();
    child.wait().unwrap();
    is_gone(&folder, &segments).await;
}

#[tokio::test]
async fn a_test_that_is_killed_with_broken_servers_leaves_nothing() {
    let own = std::env::current_exe().unwrap();
    let ending = "wait with a paused and a killed server";
    let (mut child, folder) = start_victim(&mut victim_command(&own, ending), "READY");
    let segments = segments(&folder);
    assert_eq!(segments.len(), 2);
    child.kill().unwrap();
    child.wait().unwrap();
    is_gone(&folder, &segments).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_test_that_is_killed_leaves_no_other_program() {
    let own = std::env::current_exe().unwrap();
    let ending = "wait with a paused program";
    let (mut child, folder) = start_victim(&mut victim_command(&own, ending), "READY");
    let running = || {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let inside =
            |path: PathBuf| std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder));
        entries.filter(|entry| inside(entry.path())).count()
    };
    assert_eq!(running(), 2);
    child.kill().unwrap();
    child.wait().unwrap();
    until("the programs are gone", async || running() == 0).await.unwrap();
    is_gone(&folder, &[]).await;
}

#[tokio::test]
async fn an_ordinary_user_can_run_it_and_strangers_wait_for_one_template() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
    // The ordinary user may not be able to reach the program where it was built.
    let program = temp.path().join("it");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let start = || {
        let mut command = victim_command(&program, "drop");
        command.env("TMPDIR", temp.path()).current_dir("/");
        let own = std::fs::metadata("/proc/self").unwrap();
        if own.uid() == 0 {
            let user = nix::unistd::User::from_name("postgres").unwrap().expect("a user to run servers as");
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command.spawn().unwrap()
    };
    // Both find no template, and only one makes it.
    let children = [start(), start()];
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let mut left: Vec<String> = std::fs::read_dir(temp.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert!(left.len() == 2 && left[1].starts_with("pointsman-templates-"), "{left:?}");
    let templates = std::fs::read_dir(temp.path().join(&left[1])).unwrap().count();
    assert_eq!(templates, 2, "one template and its lock");
}

#[tokio::test]
async fn a_folder_of_templates_that_others_can_write_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
    let uid = match std::fs::metadata("/proc/self").unwrap().uid() {
        0 => {
            nix::unistd::User::from_name("postgres").unwrap().expect("a user to run servers as").uid.as_raw()
        }
        uid => uid,
    };
    let planted = temp.path().join(format!("pointsman-templates-{uid}"));
    std::fs::create_dir(&planted).unwrap();
    std::fs::set_permissions(&planted, std::fs::Permissions::from_mode(0o777)).unwrap();
    let own = std::env::current_exe().unwrap();
    let output = victim_command(&own, "drop").env("TMPDIR", temp.path()).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("Untrusted"), "{said}");
}
