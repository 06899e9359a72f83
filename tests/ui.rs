//! Tests what compiles, what does not, and the words of the errors; see `tests/ui/README.md`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;
use std::{env, fs};

use self::compiler::Outcome;
use self::file::{Expect, File};
use self::judge::Complaint;

#[path = "ui/runner/compiler.rs"]
mod compiler;
#[path = "ui/runner/file.rs"]
mod file;
#[path = "ui/runner/judge.rs"]
mod judge;
#[path = "ui/runner/manifest.rs"]
mod manifest;

/// The folders with programs as users write them.
const FOLDERS: [&str; 8] =
    ["locks", "prelude", "raw", "reads", "repository", "sealed", "transactions", "writes"];

/// The folder with files that are wrong on purpose, to test this runner.
const BROKEN: &str = "broken";

/// All files and what the compiler reported: one call of cargo, made by the test that runs first.
static RUN: LazyLock<Run> = LazyLock::new(Run::new);

struct Run {
    fail: Vec<File>,
    fixed: Vec<File>,
    pass: Vec<File>,
    outcomes: BTreeMap<String, Outcome>,
}

impl Run {
    fn new() -> Self {
        let files: Vec<File> = FOLDERS.into_iter().chain([BROKEN]).flat_map(list).collect();
        let (pass, fail): (Vec<File>, Vec<File>) =
            files.into_iter().partition(|file| file.expect == Expect::Pass);
        let fixed: Vec<File> = fail.iter().map(File::fixed).collect();
        let outcomes = compiler::check(&[fail.clone(), fixed.clone(), pass.clone()].concat());
        Self { fail, fixed, pass, outcomes }
    }

    /// Returns the complaints about the files in `broken`, or about all others.
    fn complaints(&self, files: &[File], are_broken: bool) -> Vec<Complaint> {
        let files = files.iter().filter(|file| file.name.starts_with(BROKEN) == are_broken);
        files.flat_map(|file| file.judge(self.outcomes.get(&file.target()))).collect()
    }
}

/// Reads the files of a folder: those named `pass_…` must compile.
fn list(folder: &str) -> Vec<File> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui").join(folder);
    let entries =
        fs::read_dir(&path).unwrap_or_else(|error| panic!("cannot list {}: {error}", path.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a folder can be listed").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no file in {}", path.display());
    let parse = |path: &Path| {
        let stem = path.file_stem().expect("a listed file has a name").to_string_lossy();
        let source = fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        let expect = if stem.starts_with("pass_") { Expect::Pass } else { Expect::Fail };
        File::parse(format!("{folder}/{stem}"), source, expect)
    };
    paths.iter().map(|path| parse(path)).collect()
}

fn assert_none(complaints: &[Complaint]) {
    let list: String = complaints
        .iter()
        .map(|complaint| format!("\n── tests/ui/{} {}\n", complaint.place, complaint.text))
        .collect();
    assert!(complaints.is_empty(), "{} complaints{list}", complaints.len());
}

#[test]
fn every_folder_is_tested() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    let entries = fs::read_dir(path).expect("the folder is there").map(|entry| entry.expect("listed"));
    let folders = entries.filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> =
        folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name != BROKEN && name != "runner");
    names.sort();
    assert_eq!(names, FOLDERS);
}

/// The tables of `docs/types.md` name the test of each row: under `tests/ui`, or with the folder `it`.
#[test]
fn each_test_that_the_guide_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/types.md")).expect("the page is there");
    let (_, tables) = page.split_once("\n## What the compiler says").expect("the first of the tables");
    let mut named = 0;
    for row in tables.lines().filter(|line| line.starts_with("| ")) {
        let column = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        for name in column.split('`').skip(1).step_by(2) {
            let path = root.join("tests");
            let path = match name.split_once('/') {
                Some(("it" | "ui", _)) => path.join(name),
                _ => path.join("ui").join(name),
            };
            assert!(path.is_dir() || path.with_extension("rs").is_file(), "there is no test `{name}`: {row}");
            named += 1;
        }
    }
    assert!(named > 40, "only {named} tests are named");
}

#[test]
fn every_fail_case_is_refused_with_its_own_error() {
    let files = RUN.fail.iter().filter(|file| !file.name.starts_with(BROKEN));
    let cases: usize = files.map(|file| file.cases.len()).sum();
    println!("{cases} cases");
    assert!(cases > 150, "only {cases} cases were found");
    assert_none(&RUN.complaints(&RUN.fail, false));
}

#[test]
fn every_fixed_version_compiles() {
    assert_none(&RUN.complaints(&RUN.fixed, false));
}

#[test]
fn every_pass_file_compiles() {
    assert_none(&RUN.complaints(&RUN.pass, false));
}

/// Each case in `broken` is wrong in one way; a runner that accepts one of them tests nothing.
#[test]
fn the_runner_notices_what_is_wrong() {
    let complaints: Vec<Complaint> = [&RUN.fail, &RUN.fixed, &RUN.pass]
        .into_iter()
        .flat_map(|files| RUN.complaints(files, true))
        .collect();
    let found: Vec<(&str, &str)> = complaints
        .iter()
        .map(|complaint| (complaint.place.as_str(), complaint.text.lines().next().unwrap_or_default()))
        .collect();
    assert_eq!(
        found,
        [
            ("broken/cases.rs:8", "has no error"),
            ("broken/cases.rs:12", r#"fails with {"E0277", "E0308"} instead of {"E0277"}:"#),
            ("broken/cases.rs:18", r#"fails with {"E0308"} instead of {"E0308", "E0599"}:"#),
            ("broken/cases.rs:24", "does not say “you may not”:"),
            ("broken/cases.rs:28", "says “mismatched types”:"),
            ("broken/cases.rs:33", "states no words of its error (`//~ says: …`)"),
            ("broken/cases.rs:36", "states no error code, or a wrong one (`//~ E0277`)"),
            ("broken/cases.rs:41", "has two functions to fix, which must be two cases (`//~ fail: …`)"),
            ("broken/fixed_fails.rs:7", "has no fixed version (`// fixed: …` at the end of a line)"),
            ("broken/no_notes.rs:1", "states no error code, or a wrong one (`//~ E0277`)"),
            ("broken/outside", "has an error outside its cases:"),
            ("broken/syntax_error.rs:8", "has no error"),
            ("broken/fixed_fails_fixed", "fails or warns:"),
            ("broken/no_notes_fixed", "fails or warns:"),
            ("broken/outside_fixed", "fails or warns:"),
            ("broken/pass_fails", "fails or warns:"),
            ("broken/pass_warns", "fails or warns:"),
        ]
    );
}

/// A file that is missing in cargo's output must not count as one that compiles.
#[test]
fn a_file_without_a_result_is_a_complaint() {
    let files = list("reads");
    let run = Run { fail: Vec::new(), fixed: Vec::new(), pass: Vec::new(), outcomes: BTreeMap::new() };
    assert_eq!(run.complaints(&files, false).len(), files.len());
}
