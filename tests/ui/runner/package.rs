//! The package in which all files are compiled, with one call of cargo.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use serde_json::Value;

use super::case::Case;

/// What the compiler had to say about one file.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Whether cargo reported that the crate was made.
    pub(crate) compiled: bool,
}

#[derive(Debug)]
pub(crate) struct Diagnostic {
    pub(crate) is_error: bool,
    pub(crate) code: Option<String>,
    pub(crate) rendered: String,
    /// Headline, labels and notes with white space made one, so that the wrapping of lines does not matter.
    pub(crate) words: String,
}

/// Compiles the files, each as a separate crate; the answer names every file in cargo's output.
pub(crate) fn check(cases: &[Case]) -> BTreeMap<String, Verdict> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let package = tmp.join("ui");
    write_package(root, &package, cases);
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
        // The folder that the tests are built in, so that dependencies which were checked before are there.
        .arg("--target-dir")
        .arg(tmp.parent().expect("cargo makes the folder inside of its target directory"))
        .stderr(Stdio::piped())
        .output()
        .expect("cargo can be run");
    let messages = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let mut verdicts: BTreeMap<String, Verdict> = BTreeMap::new();
    let mut others = String::from_utf8_lossy(&output.stderr).into_owned();
    for message in messages {
        let ours =
            message["manifest_path"].as_str().is_some_and(|path| Path::new(path).starts_with(&package));
        if !ours || message["target"]["kind"][0] != "example" {
            let error = diagnostic(&message["message"]).filter(|diagnostic| diagnostic.is_error);
            others.extend(error.map(|error| error.rendered));
            continue;
        }
        let verdict = verdicts.entry(text(&message["target"]["name"])).or_default();
        match message["reason"].as_str() {
            Some("compiler-artifact") => verdict.compiled = true,
            Some("compiler-message") => verdict.diagnostics.extend(diagnostic(&message["message"])),
            _ => {}
        }
    }
    assert!(
        !verdicts.is_empty(),
        "not a single file was compiled, because something that all need was not:\n{others}"
    );
    verdicts
}

/// Writes only what changed: cargo goes by modification times.
fn write_package(root: &Path, package: &Path, cases: &[Case]) {
    let mut manifest = String::from(
        "[package]\nname = \"pointsman-ui\"\nversion = \"0.0.0\"\nedition = \"2024\"\nautoexamples = false\n\n\
         [workspace]\n\n[lib]\npath = \"lib.rs\"\nname = \"ui\"\n",
    );
    for case in cases {
        let path = PathBuf::from("examples").join(case.target()).with_extension("rs");
        let _ = write!(
            manifest,
            "\n[[example]]\nname = {:?}\npath = {path:?}\ncrate-type = [\"lib\"]\n",
            case.target()
        );
        write(&package.join(path), &case.source);
    }
    manifest.push_str(&dependencies(root));
    manifest.push_str(&profiles(root));
    write(&package.join("lib.rs"), &read(&root.join("tests/ui/support.rs")));
    write(&package.join("Cargo.toml"), &manifest);
    write(&package.join("Cargo.lock"), &read(&root.join("Cargo.lock")));
}

/// All dependencies of the crate with their features, so that what was compiled for it fits here too.
fn dependencies(root: &Path) -> String {
    let output = Command::new(cargo())
        .args(["metadata", "--no-deps", "--offline", "--format-version=1", "--manifest-path"])
        .arg(root.join("Cargo.toml"))
        .output()
        .expect("cargo can be run");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let package = &metadata["packages"][0];
    let mut features: Vec<&String> =
        package["features"].as_object().expect("features are a table").keys().collect();
    features.retain(|feature| *feature != "default");
    let mut merged: BTreeMap<&str, (String, bool, Vec<&Value>)> = BTreeMap::new();
    for dependency in package["dependencies"].as_array().expect("dependencies are a list") {
        let entry = merged.entry(dependency["name"].as_str().expect("a dependency has a name")).or_default();
        entry.0 = text(&dependency["req"]);
        entry.1 |= dependency["uses_default_features"] == true;
        entry.2.extend(dependency["features"].as_array().into_iter().flatten());
    }
    let mut toml = format!("\n[dependencies]\npointsman = {{ path = {root:?}, features = {features:?} }}\n");
    for (name, (version, defaults, features)) in merged {
        let features = Value::from_iter(features.into_iter().cloned());
        let _ = writeln!(
            toml,
            "{name} = {{ version = {version:?}, default-features = {defaults}, features = {features} }}"
        );
    }
    toml
}

/// The profiles of the crate: with others, nothing that was compiled before would fit.
fn profiles(root: &Path) -> String {
    let manifest = read(&root.join("Cargo.toml"));
    let mut kept = String::from("\n");
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.starts_with("[profile.");
        }
        if inside {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

fn diagnostic(message: &Value) -> Option<Diagnostic> {
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
        rendered: text(&message["rendered"]),
        words: words.join("\n"),
    })
}

fn collect_words(message: &Value, words: &mut Vec<String>) {
    let labels = message["spans"].as_array().into_iter().flatten().map(|span| &span["label"]);
    words.extend(std::iter::once(&message["message"]).chain(labels).filter_map(Value::as_str).map(squeeze));
    for child in message["children"].as_array().into_iter().flatten() {
        collect_words(child, words);
    }
}

/// Makes all white space single and takes the crate's name off the front of its types.
///
/// The compiler prints it where a name is not the only one of its kind (`Read` is a trait of `std` too).
pub(crate) fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace("pointsman::", "")
}

fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

fn write(path: &Path, content: &str) {
    if fs::read_to_string(path).is_ok_and(|old| old == content) {
        return;
    }
    let folder = path.parent().expect("the path has a folder");
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, content))
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}
