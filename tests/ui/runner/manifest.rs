//! The package that has all files as examples, with the dependencies of the crate.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::Value;

use super::compiler::text;
use super::file::File;

/// Writes only the files that changed, because cargo compares modification times.
pub(super) fn write_package(root: &Path, package: &Path, files: &[File]) {
    let mut manifest = String::from(
        "[package]\nname = \"pointsman-ui\"\nversion = \"0.0.0\"\nedition = \"2024\"\nautoexamples = false\n\n\
         [workspace]\n\n[lib]\npath = \"lib.rs\"\nname = \"fixture\"\n",
    );
    for file in files {
        let path = PathBuf::from("examples").join(file.target()).with_extension("rs");
        let _ = write!(
            manifest,
            "\n[[example]]\nname = {:?}\npath = {path:?}\ncrate-type = [\"lib\"]\n",
            file.target()
        );
        write(&package.join(path), &file.source);
    }
    manifest.push_str(&dependencies(root));
    manifest.push_str(&profiles(root));
    write(&package.join("lib.rs"), &read(&root.join("tests/ui/fixture.rs")));
    write(&package.join("Cargo.toml"), &manifest);
    write(&package.join("Cargo.lock"), &read(&root.join("Cargo.lock")));
}

/// Returns all dependencies of the crate with their features, so that cargo reuses what it compiled for the crate.
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

/// Returns the profiles of the crate: with others, cargo would compile every dependency again.
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

pub(super) fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
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
