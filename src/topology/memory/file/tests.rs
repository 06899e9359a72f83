use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn memory(timeline: u32) -> Memory {
    let text = format!(
        "# Pointsman's memory\nversion = 1\nsystem_identifier = \"7\"\ntimeline = {timeline}\n\
         [[nodes]]\naddress = \"db-1:5432\"\n"
    );
    Memory::from_text(&text).expect("valid")
}

fn wanted(timeline: u32) -> Remembered {
    Remembered { memory: Some(memory(timeline)), forgettings: 0 }
}

/// Returns the names in a folder, in order.
fn names(folder: &tempfile::TempDir) -> Vec<String> {
    let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_written_for_its_owner_alone_and_only_if_something_changed() {
    let folder = folder();
    let path = folder.path().join("memory");
    assert_eq!(read(&path), Found::Missing);
    let done = update(&path, None, &wanted(2), false).unwrap();
    assert_eq!((done.own.as_ref(), read(&path)), (Some(&memory(2)), Found::Valid(memory(2))));
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);

    update(&path, done.own.as_ref(), &wanted(2), false).unwrap();
    let inode = |metadata: fs::Metadata| std::os::unix::fs::MetadataExt::ino(&metadata);
    assert_eq!(inode(fs::metadata(&path).unwrap()), inode(metadata), "it was not replaced");
    assert_eq!(names(&folder), ["memory"]);

    let forgotten = Remembered { memory: None, forgettings: 1 };
    assert_eq!(update(&path, done.own.as_ref(), &forgotten, true).unwrap(), Done { own: None, kept: None });
    assert_eq!(names(&folder), [""; 0]);
}

#[test]
fn a_damaged_file_and_that_of_another_cluster_are_kept() {
    let folder = folder();
    let path = folder.path().join("memory");
    fs::write(&path, "").unwrap();
    let done = update(&path, None, &wanted(2), false).unwrap();
    assert_eq!(done.kept, Some((folder.path().join("memory.corrupt"), Kept::Corrupt)));
    let foreign = memory(9).to_text().replace("\"7\"", "\"8\"");
    fs::write(&path, &foreign).unwrap();
    let done = update(&path, done.own.as_ref(), &wanted(2), false).unwrap();
    assert_eq!(done.kept, Some((folder.path().join("memory.foreign"), Kept::Foreign)));
    assert_eq!(fs::read_to_string(folder.path().join("memory.foreign")).unwrap(), foreign);
    assert_eq!(read(&path), Found::Valid(memory(2)));
    assert_eq!(names(&folder), ["memory", "memory.corrupt", "memory.foreign"]);
}

#[test]
fn a_file_that_is_not_this_program_s_to_change_is_left_alone() {
    let folder = folder();
    let path = folder.path().join("memory");
    let newer = memory(2).to_text().replace("version = 1", "version = 2");
    let large = memory(2).to_text() + &"#".repeat(300_000);
    for (content, reason) in [
        ("password = \"sesame\"\n".to_owned(), "not a memory file"),
        (newer, "later version"),
        (large, "too large"),
    ] {
        fs::write(&path, &content).unwrap();
        let error = update(&path, None, &wanted(3), false).unwrap_err().to_string();
        assert!(error.contains(reason) && !error.contains("sesame"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert_eq!(read(&path), Found::Untouchable("it is not a memory file".into()));
    // A pipe without a writer would hang.
    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert!(matches!(read(&path), Found::Untouchable(reason) if reason.contains("plain file")));
    fs::remove_file(&path).unwrap();
    assert!(matches!(read(folder.path()), Found::Untouchable(reason) if reason.contains("plain file")));
    assert_eq!(names(&folder), [""; 0]);
}

#[test]
fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
    let folder = folder();
    let missing = folder.path().join("no/such/folder");
    assert_eq!(update(&missing, None, &wanted(2), false).unwrap_err().kind(), ErrorKind::NotFound);
    // A folder that is not empty is in the way, so the last step fails.
    let path = folder.path().join("memory");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("file"), "").unwrap();
    write(&path, "new").unwrap_err();
    assert_eq!(names(&folder), ["memory"]);
    assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "");
}

/// The path of the file that a child process writes until it is killed.
const CHILD: &str = "POINTSMAN_TESTKIT_MEMORY_CHILD";

/// The test starts itself as another process, which writes the file without end.
#[test]
fn a_program_that_is_killed_in_the_middle_of_a_write_leaves_a_whole_file() {
    let large = |timeline| {
        let mut text = memory(timeline).to_text();
        for i in 0..900 {
            text.push_str(&format!("[[nodes]]\naddress = \"{i}.example.com:5432\"\n"));
        }
        Memory::from_text(&text).expect("valid")
    };
    if let Some(path) = std::env::var_os(CHILD) {
        for timeline in 2.. {
            write(Path::new(&path), &large(timeline).to_text()).unwrap();
        }
    }
    let folder = folder();
    let path = folder.path().join("memory");
    write(&path, &large(1).to_text()).unwrap();
    let mut highest = 1;
    for round in 0..20 {
        let this = std::thread::current().name().expect("the name of the test").to_owned();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &this])
            .env(CHILD, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let is_written = || matches!(read(&path), Found::Valid(now) if now != large(highest));
        while !is_written() {
            assert!(child.try_wait().unwrap().is_none(), "the child writes without end");
        }
        // Each round kills it at another moment of a write; meanwhile, every read finds a whole file.
        for _ in 0..round {
            assert!(matches!(read(&path), Found::Valid(_)));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let Found::Valid(now) = read(&path) else { panic!("{:?}", fs::read_to_string(&path)) };
        assert_eq!(now, large(now.timeline), "whole");
        highest = now.timeline;
    }
}
