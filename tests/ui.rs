//! What compiles, what does not, and in which words the compiler says so; see `tests/ui/README.md`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;
use std::{env, fs};

use self::case::{Case, Kind, NO_CODE};
use self::package::{Verdict, squeeze};

#[path = "ui/runner/case.rs"]
mod case;
#[path = "ui/runner/package.rs"]
mod package;

/// All files and what became of them: one call of cargo, whichever test asks first.
static RUN: LazyLock<Run> = LazyLock::new(Run::new);

struct Run {
    cases: Vec<Case>,
    verdicts: BTreeMap<String, Verdict>,
}

impl Run {
    fn new() -> Self {
        let mut cases = list("fail", Kind::Lie);
        cases.extend(list("pass", Kind::Truth));
        cases.extend(list("fixtures/fail", Kind::Lie));
        cases.extend(list("fixtures/pass", Kind::Truth));
        let twins: Vec<Case> = cases.iter().filter_map(Case::twin).collect();
        cases.extend(twins);
        let verdicts = package::check(&cases);
        Self { cases, verdicts }
    }

    /// The complaints about all files of a folder, none of which may be missing.
    fn complaints(&self, folder: &str, kind: Kind) -> BTreeMap<&str, String> {
        let wanted = |case: &&Case| case.name.starts_with(folder) && case.kind == kind;
        let cases: Vec<&Case> = self.cases.iter().filter(wanted).collect();
        assert!(!cases.is_empty(), "no file in tests/ui/{folder}");
        println!("{} files judged in tests/ui/{folder}", cases.len());
        cases.iter().filter_map(|case| Some((case.name.as_str(), self.judge(case)?))).collect()
    }

    fn judge(&self, case: &Case) -> Option<String> {
        if let Some(fault) = case.malformed() {
            return Some(fault);
        }
        match self.verdicts.get(&case.target()) {
            None => Some("cargo said nothing about it".to_owned()),
            Some(verdict) => judge(case, verdict),
        }
    }
}

fn list(folder: &str, kind: Kind) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui").join(folder);
    let entries =
        fs::read_dir(&path).unwrap_or_else(|error| panic!("cannot list {}: {error}", path.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a folder can be listed").path()).collect();
    paths.sort();
    let read = |path: &Path| {
        fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
    };
    paths.iter().map(|path| Case::parse(folder, path, read(path), kind)).collect()
}

/// Compares what a file says about itself with what the compiler said; `None` if they agree.
fn judge(case: &Case, verdict: &Verdict) -> Option<String> {
    let rendered: String =
        verdict.diagnostics.iter().map(|diagnostic| diagnostic.rendered.as_str()).collect();
    if case.kind == Kind::Truth {
        let clean = verdict.compiled && verdict.diagnostics.is_empty();
        return (!clean).then(|| format!("does not compile without a word:\n{rendered}"));
    }
    let errors: Vec<_> = verdict.diagnostics.iter().filter(|diagnostic| diagnostic.is_error).collect();
    if verdict.compiled || errors.is_empty() {
        return Some("compiles, though it lies".to_owned());
    }
    let found: Vec<&str> = errors.iter().map(|error| error.code.as_deref().unwrap_or(NO_CODE)).collect();
    if let Some(code) = found.iter().find(|code| !case.codes.iter().any(|wanted| wanted == *code)) {
        return Some(format!("fails with {code}, which it does not state:\n{rendered}"));
    }
    if let Some(code) = case.codes.iter().find(|code| !found.contains(&code.as_str())) {
        return Some(format!("does not fail with {code}:\n{rendered}"));
    }
    let is_said = |fragment: &&String| {
        let fragment = squeeze(fragment);
        errors.iter().any(|error| error.words.contains(&fragment))
    };
    if let Some(fragment) = case.unwanted.iter().find(is_said) {
        return Some(format!("says “{fragment}”:\n{rendered}"));
    }
    let missing = case.fragments.iter().find(|fragment| !is_said(fragment));
    missing.map(|fragment| format!("does not say “{fragment}”:\n{rendered}"))
}

fn assert_none(complaints: &BTreeMap<&str, String>) {
    let list: String =
        complaints.iter().map(|(name, fault)| format!("\n── tests/ui/{name} {fault}\n")).collect();
    assert!(complaints.is_empty(), "{} files{list}", complaints.len());
}

#[test]
fn every_lie_is_refused_in_our_words() {
    assert_none(&RUN.complaints("fail/", Kind::Lie));
}

#[test]
fn every_twin_of_a_lie_compiles() {
    assert_none(&RUN.complaints("fail/", Kind::Truth));
}

#[test]
fn every_truth_compiles() {
    assert_none(&RUN.complaints("pass/", Kind::Truth));
}

/// Each file in `fixtures` is wrong in one way; a runner that is content with one of them tests nothing.
#[test]
fn the_runner_notices_what_is_wrong() {
    let mut complaints = RUN.complaints("fixtures/", Kind::Lie);
    complaints.extend(RUN.complaints("fixtures/", Kind::Truth));
    let found: Vec<(&str, &str)> =
        complaints.iter().map(|(name, fault)| (*name, fault.lines().next().unwrap_or_default())).collect();
    assert_eq!(
        found,
        [
            ("fixtures/fail/another_error", "fails with E0308, which it does not state:"),
            ("fixtures/fail/compiles", "compiles, though it lies"),
            ("fixtures/fail/no_code", "states no error code, or something that is none (`//~ E0277`)"),
            ("fixtures/fail/no_twin", "has no twin (`// twin: …` at the end of the line that lies)"),
            ("fixtures/fail/no_words", "asserts no words of its error (`//~ says: …`)"),
            ("fixtures/fail/other_code", "does not fail with E0599:"),
            ("fixtures/fail/other_words", "does not say “you may not”:"),
            ("fixtures/fail/says_too_much", "says “mismatched types”:"),
            ("fixtures/fail/twin_fails_twin", "does not compile without a word:"),
            ("fixtures/pass/fails", "does not compile without a word:"),
            ("fixtures/pass/warns", "does not compile without a word:"),
        ]
    );
}

/// A file of which cargo says nothing must not pass for one that is as it should be.
#[test]
fn a_file_without_a_result_is_a_complaint() {
    let run = Run { cases: list("pass", Kind::Truth), verdicts: BTreeMap::new() };
    let complaints = run.complaints("pass/", Kind::Truth);
    assert_eq!(complaints.len(), run.cases.len());
}
