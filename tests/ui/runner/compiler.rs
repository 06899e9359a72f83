//! One call of cargo, which compiles all files and reports their errors.

use std::collections::BTreeMap;
use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::file::File;
use super::manifest::{cargo, write_package};

/// The compiler's report about one file.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// `true` if cargo reported that the crate was compiled.
    pub(crate) compiled: bool,
}

#[derive(Debug)]
pub(crate) struct Diagnostic {
    pub(crate) is_error: bool,
    pub(crate) code: Option<String>,
    /// The line of the file that it points to; 0 if it points to no line of this file.
    pub(crate) line: usize,
    pub(crate) rendered: String,
    /// Headline, labels and notes with single spaces, because the compiler wraps lines.
    pub(crate) words: String,
}

/// Compiles the files, each as a separate crate, and returns the outcomes by crate name.
pub(crate) fn check(files: &[File]) -> BTreeMap<String, Outcome> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let package = tmp.join("ui");
    write_package(root, &package, files);
    let output = Command::new(cargo())
        .args([
            "check",
            "--offline",
            "--examples",
            "--keep-going",
            "--message-format=json",
            "--manifest-path",
        ])
        .arg(package.join("Cargo.toml"))
        // The tests' own target directory, because it has the dependencies already.
        .arg("--target-dir")
        .arg(tmp.parent().expect("cargo makes the folder inside its target directory"))
        .stderr(Stdio::piped())
        .output()
        .expect("cargo can be run");
    let messages = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let mut outcomes: BTreeMap<String, Outcome> = BTreeMap::new();
    let mut others = String::from_utf8_lossy(&output.stderr).into_owned();
    for message in messages {
        let ours =
            message["manifest_path"].as_str().is_some_and(|path| Path::new(path).starts_with(&package));
        if !ours || message["target"]["kind"][0] != "example" {
            let error = diagnostic(&message).filter(|diagnostic| diagnostic.is_error);
            others.extend(error.map(|error| error.rendered));
            continue;
        }
        let outcome = outcomes.entry(text(&message["target"]["name"])).or_default();
        match message["reason"].as_str() {
            Some("compiler-artifact") => outcome.compiled = true,
            Some("compiler-message") => outcome.diagnostics.extend(diagnostic(&message)),
            _ => {}
        }
    }
    assert!(
        !outcomes.is_empty(),
        "no file was compiled, because a dependency of all files failed:\n{others}"
    );
    outcomes
}

fn diagnostic(report: &Value) -> Option<Diagnostic> {
    let message = &report["message"];
    let is_error = message["level"] == "error";
    // "aborting due to 2 previous errors", "3 warnings emitted"
    let is_summary = message["code"].is_null() && message["spans"].as_array().is_none_or(Vec::is_empty);
    if is_summary || !(is_error || message["level"] == "warning") {
        return None;
    }
    let mut words = Vec::new();
    collect_words(message, &mut words);
    Some(Diagnostic {
        is_error,
        code: message["code"]["code"].as_str().map(str::to_owned),
        line: line(message, &text(&report["target"]["src_path"])),
        rendered: text(&message["rendered"]),
        words: words.join("\n"),
    })
}

/// Returns the line that the diagnostic points to, through macros to the line that calls them.
fn line(message: &Value, source: &str) -> usize {
    let mut span = message["spans"].as_array().into_iter().flatten().find(|span| span["is_primary"] == true);
    while let Some(inner) = span {
        let line = inner["line_start"].as_u64().and_then(|line| usize::try_from(line).ok());
        match (inner["file_name"].as_str(), line) {
            (Some(name), Some(line)) if Path::new(source).ends_with(name) => return line,
            _ => span = inner["expansion"].get("span"),
        }
    }
    0
}

fn collect_words(message: &Value, words: &mut Vec<String>) {
    let labels = message["spans"].as_array().into_iter().flatten().map(|span| &span["label"]);
    words.extend(std::iter::once(&message["message"]).chain(labels).filter_map(Value::as_str).map(squeeze));
    for child in message["children"].as_array().into_iter().flatten() {
        collect_words(child, words);
    }
}

/// Replaces white space by single spaces, and removes the crate's name from the paths of its types.
///
/// The compiler prints it if a name is ambiguous (`Read` is a trait of `std`, too).
pub(crate) fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace("pointsman::", "")
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
