//! Compares what the files state with what the compiler reported.

use std::collections::BTreeSet;

use super::compiler::{Diagnostic, Outcome, squeeze};
use super::file::{Case, Expect, FIXED, File};

/// A fault of a file or with one of its cases.
#[derive(Debug)]
pub(crate) struct Complaint {
    /// The file, such as `locks/clauses`, and the first line of the case if it is about one.
    pub(crate) place: String,
    pub(crate) text: String,
}

/// Stands for the code of an error without one, such as some errors about lifetimes.
const NO_CODE: &str = "none";

impl File {
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
        let fixed = self.fixed_functions(case);
        if fixed.is_empty() {
            return Some(format!("has no fixed version (`{FIXED} …` at the end of a line)"));
        }
        (fixed.len() > 1)
            .then(|| "has two functions to fix, which must be two cases (`//~ fail: …`)".to_owned())
    }

    /// Returns the functions of a case that differ in the fixed version, by the line that they start in.
    ///
    /// The lines above the first function count as part of it.
    fn fixed_functions(&self, case: &Case) -> BTreeSet<usize> {
        let is_function = |line: &str| {
            ["fn ", "async fn ", "pub fn ", "pub async fn "].iter().any(|start| line.starts_with(start))
        };
        let mut function = *case.lines.start();
        let mut has_function = false;
        let mut fixed = BTreeSet::new();
        for (number, line) in (1..).zip(self.source.lines()).filter(|(number, _)| case.lines.contains(number))
        {
            if is_function(line) {
                if has_function {
                    function = number;
                }
                has_function = true;
            }
            if self.fix(number, line) != line {
                fixed.insert(function);
            }
        }
        fixed
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
