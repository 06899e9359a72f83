//! The locked dependencies compile with the Rust version that `Cargo.toml` promises.

#![expect(clippy::unwrap_used, reason = "a test that panics is a test that fails, and says where")]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Major and minor version, such as (1, 88).
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap_or_default())
}

fn list<'v>(value: &'v Value, name: &str) -> &'v Vec<Value> {
    value[name].as_array().unwrap_or_else(|| panic!("cargo metadata has no list `{name}`"))
}

/// The crates that a program compiles, with all features; the tests' own dependencies may need more.
fn compiled(metadata: &Value) -> BTreeSet<&str> {
    let nodes = list(&metadata["resolve"], "nodes");
    let dependencies: BTreeMap<_, _> =
        nodes.iter().map(|node| (node["id"].as_str().unwrap(), list(node, "deps"))).collect();
    let mut found = BTreeSet::new();
    let mut open = vec![metadata["resolve"]["root"].as_str().unwrap()];
    while let Some(id) = open.pop() {
        if found.insert(id) {
            let is_compiled =
                |dependency: &&Value| list(dependency, "dep_kinds").iter().any(|kind| kind["kind"] != "dev");
            open.extend(dependencies[id].iter().filter(is_compiled).map(|dep| dep["pkg"].as_str().unwrap()));
        }
    }
    found
}

/// Cargo refuses a dependency that needs more, so the scripts would need a newer Rust than the README says.
#[test]
fn no_locked_dependency_needs_a_newer_rust_than_the_manifest_promises() {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--offline", "--locked", "--all-features", "--format-version=1"])
        .args(["--filter-platform", &host()])
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let compiled = compiled(&metadata);
    assert!(compiled.len() > 100, "only {} packages were found", compiled.len());
    let promised = version(env!("CARGO_PKG_RUST_VERSION"));
    let newer: Vec<String> = list(&metadata, "packages")
        .iter()
        .filter(|package| compiled.contains(package["id"].as_str().unwrap()))
        .filter(|package| package["rust_version"].as_str().is_some_and(|needed| version(needed) > promised))
        .map(|package| {
            format!("{} {} needs {}", package["name"], package["version"], package["rust_version"])
        })
        .collect();
    assert!(newer.is_empty(), "with a rust-version of {promised:?}: {newer:?}");
}

/// Returns the platform of the compiler, because cargo may not have downloaded what others need.
fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}
