//! Words that make a sentence hard to read stay out of the project, and each documentation begins in one short line.

use std::fs;
use std::path::{Path, PathBuf};

/// Words and phrases that hide the subject, or that have a plainer form.
const UNWANTED: [&str; 9] = [
    "whoever",
    "nobody",
    "somebody",
    "everybody",
    "of its own",
    "in the place of",
    "inside of",
    "anew",
    "so many",
];

/// First words of a documentation that is no sentence about its item.
const UNWANTED_FIRST: [&str; 12] =
    ["Tells", "Lends", "Whether", "How", "What", "Says", "Gives", "Makes", "Names", "Why", "Who", "Where"];

/// Columns of the first line of a documentation.
const COLUMNS: usize = 80;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the files at these paths, and those in the folders among them.
fn files(paths: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut rest: Vec<_> = paths.iter().map(|path| root().join(path)).collect();
    while let Some(path) = rest.pop() {
        if path.is_dir() {
            rest.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn lines(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(str::to_owned).enumerate().map(|(index, line)| (index + 1, line)).collect()
}

/// Returns the words of a line in lower case, also those of a name such as `of_its_own`.
fn words(line: &str) -> String {
    let plain = line.to_lowercase().replace(|c: char| !c.is_alphanumeric(), " ");
    format!(" {} ", plain.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn is_unwanted(line: &str) -> bool {
    // A user of the system has this name.
    let words = words(&line.replace("\"nobody\"", "").replace("`nobody`", ""));
    UNWANTED.iter().any(|unwanted| words.contains(&format!(" {unwanted} ")))
}

/// Returns the text of a documentation comment.
fn documentation(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.strip_prefix("///").or_else(|| line.strip_prefix("//!")).map(str::trim_start)
}

/// Returns the first line of each documentation in a file.
fn first_lines(path: &Path) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut is_inside = false;
    for (number, line) in lines(path) {
        let was_inside = std::mem::replace(&mut is_inside, documentation(&line).is_some());
        if is_inside && !was_inside {
            found.push((number, line));
        }
    }
    found
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

#[track_caller]
fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "{} lines:\n{}", found.len(), found.join("\n"));
}

fn shown(path: &Path, number: usize, line: &str) -> String {
    format!("{}:{number}: {}", path.strip_prefix(root()).unwrap_or(path).display(), line.trim())
}

#[test]
fn no_line_has_an_unwanted_word() {
    let everywhere = [
        "src",
        "docs",
        "tests",
        "examples",
        "benches",
        "scripts",
        "migrations",
        ".ci",
        "Cargo.toml",
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "pointsman.example.toml",
        ".env.example",
    ];
    let mut found = Vec::new();
    for path in files(&everywhere).iter().filter(|path| !path.ends_with("tests/words.rs")) {
        let unwanted = lines(path).into_iter().filter(|(_, line)| is_unwanted(line));
        found.extend(unwanted.map(|(number, line)| shown(path, number, &line)));
    }
    assert_none(&found);
}

#[test]
fn documentation_begins_with_its_subject_or_its_verb() {
    let mut found = Vec::new();
    for path in files(&["src", "tests", "examples", "benches"]).iter().filter(|path| is_rust(path)) {
        let unwanted = first_lines(path).into_iter().filter(|(_, line)| {
            documentation(line)
                .and_then(|text| text.split_whitespace().next())
                .is_some_and(|first| UNWANTED_FIRST.contains(&first))
        });
        found.extend(unwanted.map(|(number, line)| shown(path, number, &line)));
    }
    assert_none(&found);
}

/// The notes of tests are not checked, because they describe a defect, nor the help of the program.
#[test]
fn documentation_begins_in_one_short_line() {
    let mut found = Vec::new();
    let is_checked = |path: &&PathBuf| {
        let is_test =
            path.iter().any(|part| part == "tests" || part == "tests.rs" || part == "documentation.rs");
        is_rust(path) && !is_test && !path.starts_with(root().join("src/bin"))
    };
    for path in files(&["src"]).iter().filter(is_checked) {
        let lines = lines(path);
        let tests = lines.iter().position(|(_, line)| line == "#[cfg(test)]").unwrap_or(lines.len());
        let long = first_lines(path).into_iter().filter(|(number, line)| {
            let text = documentation(line).unwrap_or_default();
            // A sentence that goes on in the next line is as long.
            let next = lines.get(*number).and_then(|(_, next)| documentation(next)).unwrap_or_default();
            let goes_on = !next.is_empty() && !text.ends_with('.') && !text.starts_with("```");
            *number < tests && (text.chars().count() > COLUMNS || goes_on)
        });
        found.extend(long.map(|(number, line)| shown(path, number, &line)));
    }
    assert_none(&found);
}

#[test]
fn an_unwanted_word_is_found_in_text_and_in_names() {
    assert!(is_unwanted("// Whoever waits is served."));
    assert!(is_unwanted("fn a_task_of_its_own() {"));
    assert!(is_unwanted("| So many looks |"));
    assert!(!is_unwanted("// Runs as `nobody`, on a separate line; renewed."));
}
