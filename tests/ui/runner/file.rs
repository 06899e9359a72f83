//! One file under `tests/ui`, with the cases in it and what they state.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::package::{Diagnostic, Outcome, squeeze};

/// What the compiler must do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Refuse each case in it, with the stated errors.
    Fail,
    /// Compile it without a warning.
    Pass,
}

/// One file to compile.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// Folder and stem, such as `locks/clauses`.
    pub(crate) name: String,
    /// The file as written, or for a fixed version as derived.
    pub(crate) source: String,
    pub(crate) expect: Expect,
    pub(crate) cases: Vec<Case>,
}

/// A part of a file that must not compile: from its `//~ fail:` to the next one, or else the whole file.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) lines: RangeInclusive<usize>,
    /// The only error codes that may come, each at least once (`//~ E0277`); `none` for an error without a code.
    codes: BTreeSet<String>,
    /// Fragments that the errors must contain (`//~ says: …`).
    fragments: Vec<String>,
    /// Fragments that the errors must not contain (`//~ never says: …`).
    unwanted: Vec<String>,
    /// Texts to replace in the fixed version (`//~ fixed: … => …`).
    replacements: Vec<(String, String)>,
}

/// What is wrong with a file or with one of its cases.
#[derive(Debug)]
pub(crate) struct Complaint {
    /// `locks/clauses`, with the line of a case if it is about one.
    pub(crate) place: String,
    pub(crate) text: String,
}

/// Stands for the code of errors that have none; those about lifetimes, for one.
const NO_CODE: &str = "none";

/// Introduces a note to the runner, on a line of its own.
const NOTE: &str = "//~";

/// Introduces, at the end of a line, this line of the fixed version.
const FIXED: &str = "// fixed:";

impl File {
    /// Reads the notes of a file; those above the first case hold for each case.
    pub(crate) fn parse(name: String, source: String, expect: Expect) -> Self {
        let mut all = Notes::default();
        let mut cases: Vec<(usize, Notes)> = Vec::new();
        for (number, line) in (1..).zip(source.lines()) {
            let Some(note) = line.trim().strip_prefix(NOTE).map(str::trim) else { continue };
            if note.starts_with("fail:") {
                cases.push((number, Notes::default()));
            } else {
                cases.last_mut().map_or(&mut all, |(_, notes)| notes).add(note);
            }
        }
        if cases.is_empty() && expect == Expect::Fail {
            cases.push((1, Notes::default()));
        }
        let ends = cases.iter().skip(1).map(|(start, _)| start - 1).chain([source.lines().count()]);
        let ends: Vec<usize> = ends.collect();
        let lines: Vec<&str> = source.lines().collect();
        let cases = cases.into_iter().zip(ends).map(|((start, notes), end)| {
            let has_fixed_line = lines[start - 1..end].iter().any(|line| line.contains(FIXED));
            notes.into_case(start..=end, &all, has_fixed_line)
        });
        let cases = cases.collect();
        Self { name, source, expect, cases }
    }

    /// Returns the name of the crate that the file is compiled as.
    pub(crate) fn target(&self) -> String {
        self.name.replace('/', "_")
    }

    /// Returns the version of a fail file that must compile.
    ///
    /// It has the same lines, apart from those that the file itself says how to fix. So these lines are what
    /// the compiler refused.
    pub(crate) fn fixed(&self) -> Self {
        let lines: Vec<String> =
            (1..).zip(self.source.lines()).map(|(number, line)| self.fix(number, line)).collect();
        let name = format!("{}_fixed", self.name);
        Self { name, source: lines.join("\n"), expect: Expect::Pass, cases: Vec::new() }
    }

    fn fix(&self, number: usize, line: &str) -> String {
        if let Some((_, fixed)) = line.split_once(FIXED) {
            return fixed.trim().to_owned();
        }
        let is_code = !line.trim_start().starts_with("//");
        let case = self.cases.iter().find(|case| is_code && case.lines.contains(&number));
        let replacements = case.into_iter().flat_map(|case| &case.replacements);
        replacements.fold(line.to_owned(), |line, (from, to)| line.replace(from, to))
    }

    /// Compares what the file states with what the compiler reported.
    pub(crate) fn judge(&self, outcome: Option<&Outcome>) -> Vec<Complaint> {
        let complaint = |text: String| vec![Complaint { place: self.name.clone(), text }];
        let Some(outcome) = outcome else { return complaint("has no result from cargo".to_owned()) };
        if self.expect == Expect::Pass {
            let clean = outcome.compiled && outcome.diagnostics.is_empty();
            let text = format!("fails or warns:\n{}", rendered(&outcome.diagnostics));
            return if clean { Vec::new() } else { complaint(text) };
        }
        let errors = || outcome.diagnostics.iter().filter(|diagnostic| diagnostic.is_error);
        let outside = errors().find(|error| !self.cases.iter().any(|case| case.lines.contains(&error.line)));
        let outside = outside.map(|error| format!("has an error outside its cases:\n{}", error.rendered));
        let mut complaints: Vec<Complaint> = outside.map(complaint).unwrap_or_default();
        complaints.extend(self.cases.iter().filter_map(|case| {
            let errors: Vec<_> = errors().filter(|error| case.lines.contains(&error.line)).collect();
            let text = self.malformed(case).or_else(|| case.judge(&errors))?;
            Some(Complaint { place: format!("{}.rs:{}", self.name, case.lines.start()), text })
        }));
        complaints
    }

    /// Returns what is wrong with the case itself, whatever the compiler reports.
    fn malformed(&self, case: &Case) -> Option<String> {
        let is_code = |code: &String| {
            code == NO_CODE || code.strip_prefix('E').is_some_and(|digits| digits.parse::<u16>().is_ok())
        };
        if case.codes.is_empty() || !case.codes.iter().all(is_code) {
            return Some("states no error code, or a wrong one (`//~ E0277`)".to_owned());
        }
        if case.fragments.is_empty() || case.fragments.iter().any(String::is_empty) {
            return Some("states no words of its error (`//~ says: …`)".to_owned());
        }
        let mut lines = (1..).zip(self.source.lines()).filter(|(number, _)| case.lines.contains(number));
        let is_fixed = lines.any(|(number, line)| self.fix(number, line) != line);
        (!is_fixed).then(|| format!("has no fixed version (`{FIXED} …` at the end of a line)"))
    }
}

impl Case {
    /// Compares what the case states with the errors in its lines; `None` if they agree.
    fn judge(&self, errors: &[&Diagnostic]) -> Option<String> {
        if errors.is_empty() {
            return Some("has no error".to_owned());
        }
        let rendered = rendered(errors.iter().copied());
        let code = |error: &&Diagnostic| error.code.clone().unwrap_or_else(|| NO_CODE.to_owned());
        let found: BTreeSet<String> = errors.iter().map(code).collect();
        if found != self.codes {
            return Some(format!("fails with {found:?} instead of {:?}:\n{rendered}", self.codes));
        }
        let is_said = |fragment: &&String| {
            let fragment = squeeze(fragment);
            errors.iter().any(|error| error.words.contains(&fragment))
        };
        if let Some(fragment) = self.unwanted.iter().find(is_said) {
            return Some(format!("says “{fragment}”:\n{rendered}"));
        }
        let missing = self.fragments.iter().find(|fragment| !is_said(fragment));
        missing.map(|fragment| format!("does not say “{fragment}”:\n{rendered}"))
    }
}

fn rendered<'a>(diagnostics: impl IntoIterator<Item = &'a Diagnostic>) -> String {
    diagnostics.into_iter().map(|diagnostic| diagnostic.rendered.as_str()).collect()
}

/// The notes of one case, or those that hold for every case of a file.
#[derive(Debug, Default)]
struct Notes {
    codes: Vec<String>,
    fragments: Vec<String>,
    unwanted: Vec<String>,
    replacements: Vec<(String, String)>,
}

impl Notes {
    fn add(&mut self, note: &str) {
        let after = |prefix: &str| note.strip_prefix(prefix).map(|text| text.trim().to_owned());
        if let Some(fragment) = after("says:") {
            self.fragments.push(fragment);
        } else if let Some(fragment) = after("never says:") {
            self.unwanted.push(fragment);
        } else if let Some((from, to)) = after("fixed:").as_deref().and_then(|text| text.split_once(" => ")) {
            self.replacements.push((from.to_owned(), to.to_owned()));
        } else {
            self.codes.push(note.to_owned());
        }
    }

    /// Adds the notes of the file: its words always, its codes and replacements if the case has none of its own.
    fn into_case(self, lines: RangeInclusive<usize>, all: &Self, has_fixed_line: bool) -> Case {
        let codes = if self.codes.is_empty() { &all.codes } else { &self.codes };
        let is_fixed = has_fixed_line || !self.replacements.is_empty();
        Case {
            lines,
            codes: codes.iter().cloned().collect(),
            fragments: [all.fragments.clone(), self.fragments].concat(),
            unwanted: [all.unwanted.clone(), self.unwanted].concat(),
            replacements: if is_fixed { self.replacements } else { all.replacements.clone() },
        }
    }
}
