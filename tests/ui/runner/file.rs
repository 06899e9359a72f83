//! One file under `tests/ui`, with the cases in it and what they state.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// The required behaviour of the compiler for a file.
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
    pub(super) codes: BTreeSet<String>,
    /// Fragments that the errors must contain (`//~ says: …`).
    pub(super) fragments: Vec<String>,
    /// Fragments that the errors must not contain (`//~ never says: …`).
    pub(super) unwanted: Vec<String>,
    /// Texts to replace in the fixed version (`//~ fixed: … => …`).
    replacements: Vec<(String, String)>,
}

/// Introduces a note to the runner, on a separate line.
const NOTE: &str = "//~";

/// Introduces, at the end of a line, this line of the fixed version.
pub(super) const FIXED: &str = "// fixed:";

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
    /// It differs only in the lines that the notes of the file fix. So the compiler refused these lines.
    pub(crate) fn fixed(&self) -> Self {
        let lines: Vec<String> =
            (1..).zip(self.source.lines()).map(|(number, line)| self.fix(number, line)).collect();
        let name = format!("{}_fixed", self.name);
        Self { name, source: lines.join("\n"), expect: Expect::Pass, cases: Vec::new() }
    }

    pub(super) fn fix(&self, number: usize, line: &str) -> String {
        if let Some((_, fixed)) = line.split_once(FIXED) {
            return fixed.trim().to_owned();
        }
        let is_code = !line.trim_start().starts_with("//");
        let case = self.cases.iter().find(|case| is_code && case.lines.contains(&number));
        let replacements = case.into_iter().flat_map(|case| &case.replacements);
        replacements.fold(line.to_owned(), |line, (from, to)| line.replace(from, to))
    }
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

    /// Adds the notes of the file: its words always, its codes and replacements if the case has none.
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
