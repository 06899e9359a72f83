//! Programs of other projects beside the servers.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use pointsman::testkit::ProgramFolder;
use pointsman::testkit::wait::until;

/// A shell with a child, which writes their numbers and waits.
const TOOL: [&str; 2] = ["-c", "sleep 600 & echo $$ $!; wait"];

/// The states of the processes that the tool's log names, in the notation of `ps`.
fn states(folder: &ProgramFolder) -> Vec<char> {
    let state = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next().filter(|state| !matches!(state, 'Z' | 'X'))
    };
    folder.log("tool").split_whitespace().filter_map(state).collect()
}

async fn start_tool() -> ProgramFolder {
    let folder = ProgramFolder::create().await.unwrap();
    folder.start("tool", "/bin/sh", &TOOL).unwrap();
    until("both run", async || states(&folder).len() == 2).await.unwrap();
    folder
}

#[tokio::test]
async fn all_processes_of_a_place_are_paused_resumed_and_killed_together() {
    let folder = start_tool().await;
    folder.start("other", "/bin/sh", &TOOL).unwrap();

    folder.pause("tool").await.unwrap();
    assert_eq!(states(&folder), ['T', 'T']);
    folder.resume("tool").await.unwrap();
    assert!(!states(&folder).contains(&'T'));
    folder.kill("tool").await.unwrap();
    assert!(states(&folder).is_empty());
    assert!(!folder.is_running("tool"));
    assert!(folder.is_running("other"), "another place is left alone");
}

#[tokio::test]
async fn programs_run_as_the_servers_user_and_end_with_the_folder() {
    let folder = start_tool().await;
    let pids = folder.log("tool");
    for pid in pids.split_whitespace() {
        let owner = std::fs::metadata(format!("/proc/{pid}")).unwrap().uid();
        assert_eq!(owner, std::fs::metadata(folder.path()).unwrap().uid());
        assert_ne!(owner, 0);
    }
    let file = folder.write("settings", "text").unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "text");

    drop(folder);
    assert!(!file.exists());
    let is_gone = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z")
    };
    assert!(pids.split_whitespace().all(is_gone), "{pids}");
}

/// The standard library sets `SO_REUSEADDR`, as most servers do.
#[tokio::test]
async fn a_reserved_port_refuses_until_a_program_listens() {
    let folder = ProgramFolder::create().await.unwrap();
    let address = ("127.0.0.1", folder.reserve_port().unwrap());
    std::net::TcpStream::connect(address).unwrap_err();
    let _listener = std::net::TcpListener::bind(address).unwrap();
    std::net::TcpStream::connect(address).unwrap();
}

#[tokio::test]
async fn a_program_that_is_missing_is_an_error_that_names_it() {
    let folder = ProgramFolder::create().await.unwrap();
    let error = folder.start("tool", "/nowhere/tool", &[]).unwrap_err();
    assert!(error.to_string().contains("/nowhere/tool"), "{error}");
    let pausing = tokio::time::timeout(Duration::from_millis(100), folder.pause("tool")).await;
    assert!(pausing.is_err(), "there is nothing to pause");
}
