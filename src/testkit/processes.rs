//! The processes of a server: the postmaster and its children.
//!
//! Each backend leads a separate process group, so a signal to the postmaster's group reaches the postmaster alone. A
//! busy backend also outlives a postmaster that was killed. On Linux, the kit finds the processes by their working
//! directory, which is the data directory for all of them, even after they lost their parent.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;

/// A process and the letter of its state, `T` for stopped, in the notation of `ps`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process {
    pub(super) pid: Pid,
    pub(super) state: char,
}

/// Sends `signal` to the processes; one that has ended meanwhile is no error.
pub(super) fn signal(processes: &[Process], signal: Signal) {
    for process in processes {
        let _ = kill(process.pid, signal);
    }
}

/// Lists the processes of the server in `data_dir` that are alive.
#[cfg(target_os = "linux")]
pub(super) fn of(data_dir: &Path) -> Vec<Process> {
    // A shell in the folder is not a server.
    living(|directory| directory == data_dir, |name| name == "postgres")
}

/// Lists the live processes whose working directory is in `folder`.
#[cfg(target_os = "linux")]
pub(super) fn within(folder: &Path) -> Vec<Process> {
    living(|directory| directory.starts_with(folder), |_| true)
}

/// Lists the living processes by their working directory and their name.
#[cfg(target_os = "linux")]
fn living(is_here: impl Fn(&Path) -> bool, is_named: impl Fn(&str) -> bool) -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let is_here = is_here(&std::fs::read_link(entry.path().join("cwd")).ok()?);
            let stat = is_here.then(|| std::fs::read_to_string(entry.path().join("stat")).ok()).flatten()?;
            // `pid (name) state …`, where the name may hold anything.
            let (before, after) = stat.rsplit_once(") ")?;
            let (_, name) = before.split_once('(')?;
            let state = after.chars().next()?;
            // A zombie is dead.
            let is_ours = is_named(name) && !matches!(state, 'Z' | 'X');
            is_ours.then(|| Process { pid: Pid::from_raw(pid), state })
        })
        .collect()
}

/// Lists the processes of the server in `data_dir` that are alive.
#[cfg(not(target_os = "linux"))]
pub(super) fn of(data_dir: &Path) -> Vec<Process> {
    let pid_file = std::fs::read_to_string(data_dir.join("postmaster.pid")).unwrap_or_default();
    let Some(postmaster) = pid_file.lines().next().and_then(|line| line.trim().parse::<i32>().ok()) else {
        return Vec::new();
    };
    let Ok(listed) = std::process::Command::new("ps").args(["-A", "-o", "pid=,ppid=,stat="]).output() else {
        return Vec::new();
    };
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    listed
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (pid, parent) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            let state = fields.next()?.chars().next()?;
            let is_ours = (pid == postmaster || parent == postmaster) && state != 'Z';
            is_ours.then(|| Process { pid: Pid::from_raw(pid), state })
        })
        .collect()
}
