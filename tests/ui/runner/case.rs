//! One file under `tests/ui`, and its stated expectations.

use std::path::Path;

/// What a file is there to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It must not compile, for the stated reason.
    Lie,
    /// It must compile without a warning.
    Truth,
}

/// One file to compile.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// Folder and stem, such as `fail/insert`.
    pub(crate) name: String,
    /// The file as written, or for a twin as derived.
    pub(crate) source: String,
    pub(crate) kind: Kind,
    /// The only error codes that may come, each at least once (`//~ E0277`); `none` for errors that have none.
    pub(crate) codes: Vec<String>,
    /// Fragments that the errors must contain (`//~ says: …`).
    pub(crate) fragments: Vec<String>,
    /// Fragments that the errors must not contain (`//~ never says: …`).
    pub(crate) unwanted: Vec<String>,
}

/// Stands for the code of errors that have none; those about lifetimes, for one.
pub(crate) const NO_CODE: &str = "none";

/// Introduces, at the end of a line, what this line is in the twin.
const TWIN: &str = "// twin:";

impl Case {
    pub(crate) fn parse(folder: &str, path: &Path, source: String, kind: Kind) -> Self {
        let stem = path.file_stem().expect("a listed file has a name").to_string_lossy();
        let notes: Vec<&str> =
            source.lines().filter_map(|line| line.trim().strip_prefix("//~")).map(str::trim).collect();
        let after = |prefix: &str| -> Vec<String> {
            notes
                .iter()
                .filter_map(|note| note.strip_prefix(prefix))
                .map(|text| text.trim().to_owned())
                .collect()
        };
        let (fragments, unwanted) = (after("says:"), after("never says:"));
        let codes =
            notes.iter().filter(|note| !note.contains("says:")).map(|note| (*note).to_owned()).collect();
        Self { name: format!("{folder}/{stem}"), source, kind, codes, fragments, unwanted }
    }

    /// The name of the crate that the file is compiled as.
    pub(crate) fn target(&self) -> String {
        self.name.replace('/', "_")
    }

    /// The same file with each marked line replaced by what its mark says: it must compile.
    ///
    /// Lie and twin differ in these lines alone, so it is these lines that the compiler refused.
    pub(crate) fn twin(&self) -> Option<Self> {
        let mut marks = 0;
        let lines = self.source.lines().map(|line| match line.split_once(TWIN) {
            Some((_, twin)) => {
                marks += 1;
                twin.trim().to_owned()
            }
            None => line.to_owned(),
        });
        let source = lines.collect::<Vec<_>>().join("\n");
        let twin = Self { name: format!("{}_twin", self.name), kind: Kind::Truth, source, ..self.clone() };
        (marks > 0).then_some(twin)
    }

    /// What is wrong with the file itself, before anything is compiled.
    pub(crate) fn malformed(&self) -> Option<String> {
        if self.kind == Kind::Truth {
            return None;
        }
        let code = |code: &String| {
            code == NO_CODE || code.strip_prefix('E').is_some_and(|digits| digits.parse::<u16>().is_ok())
        };
        if self.codes.is_empty() || !self.codes.iter().all(code) {
            return Some("states no error code, or something that is none (`//~ E0277`)".to_owned());
        }
        if self.fragments.is_empty() || self.fragments.iter().any(String::is_empty) {
            return Some("asserts no words of its error (`//~ says: …`)".to_owned());
        }
        (!self.source.contains(TWIN))
            .then(|| format!("has no twin (`{TWIN} …` at the end of the line that lies)"))
    }
}
