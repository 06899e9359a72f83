//! The links of the pages lead somewhere, and the methods that they name exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const LINKS: &str = include_str!("links.md");

/// The text of each page by its file name.
fn pages() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    files.map(|path| (name(&path), std::fs::read_to_string(&path).unwrap())).collect()
}

/// The text outside code blocks.
fn prose(page: &str) -> String {
    let mut code = false;
    let lines = page.lines().filter(|line| {
        let fence = line.starts_with("```");
        code ^= fence;
        !code && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The anchors of the headings, as web views of repositories and rustdoc make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let slug = |heading: &str| -> String {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
    };
    let text = prose(page);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| slug(line.trim_start_matches('#').trim())).collect()
}

/// Returns the text between each `before` and the next `after`.
fn between<'t>(text: &'t str, before: &str, after: char) -> Vec<&'t str> {
    text.split(before).skip(1).filter_map(|rest| rest.split(after).next()).collect()
}

/// The lines `[label]: target`.
fn definitions(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: ")).collect()
}

#[test]
fn each_link_leads_to_a_heading_in_the_repository_and_in_the_guide() {
    let pages = pages();
    let known = definitions(LINKS);
    for (name, page) in &pages {
        let text = prose(page);
        for target in between(&text, "](", ')') {
            let anchor = target.strip_prefix('#').unwrap_or_else(|| {
                panic!("{name}: write `[…][{target}]`, and define it at the end of the page and in src/guide/links.md")
            });
            assert!(anchors(page).contains(anchor), "{name}: there is no heading `{anchor}`");
        }
        let defined = definitions(&text);
        for label in between(&text, "][", ']') {
            assert!(defined.contains_key(label), "{name}: `[{label}]` is not defined");
        }
        for (label, target) in defined {
            assert_eq!(label, target, "{name}: a link is defined by its own name");
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let Some(other) = pages.get(file) else { panic!("{name}: there is no page {file}") };
            assert!(anchor.is_empty() || anchors(other).contains(anchor), "{name}: {target} leads nowhere");
            let module = target.replacen(".md", "", 1);
            let (module, anchor) = module.split_once('#').map_or((&*module, ""), |(m, a)| (m, a));
            let hash = if anchor.is_empty() { "" } else { "#" };
            let path = format!("crate::guide::{}{hash}{anchor}", module.replace('-', "_"));
            assert_eq!(known.get(label), Some(&&*path), "src/guide/links.md lacks `[{label}]: {path}`");
        }
    }
}

#[test]
fn each_page_is_a_module_of_the_guide() {
    let source = include_str!("../guide.rs");
    for name in pages().keys() {
        assert!(source.contains(&format!("\"docs/{name}\"")), "src/guide.rs lacks docs/{name}");
    }
}

#[test]
fn the_links_of_the_readme_lead_to_pages_and_headings() {
    let pages = pages();
    let readme = prose(include_str!("../../README.md"));
    let links = between(&readme, "](docs/", ')');
    assert!(links.len() > 5, "{links:?}");
    for target in links {
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let Some(page) = pages.get(file) else { panic!("there is no docs/{file}") };
        assert!(anchor.is_empty() || anchors(page).contains(anchor), "docs/{target} leads nowhere");
    }
}

/// The text of all source files below a folder.
fn sources(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text = |path: std::path::PathBuf| match path.extension() {
        Some(extension) if extension == "rs" => std::fs::read_to_string(path).unwrap(),
        None => sources(&path),
        Some(_) => String::new(),
    };
    entries.map(text).collect()
}

/// Code blocks are compiled, but not the code within a sentence: `conn.is_lost()` stood there long after its new name.
#[test]
fn each_method_that_a_sentence_calls_exists() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut calls = 0;
    for (name, page) in pages() {
        let text = prose(&page);
        for code in text.split('`').skip(1).step_by(2) {
            for receiver in ["conn.", "set.", "session.", "tx.", "Conn::", "ReplicaSet::"] {
                for rest in code.split(receiver).skip(1) {
                    let method = rest.split(|c| !is_name(c)).next().unwrap_or_default();
                    if rest[method.len()..].starts_with('(') {
                        calls += 1;
                        let exists =
                            ["(", "<"].iter().any(|next| sources.contains(&format!("fn {method}{next}")));
                        assert!(exists, "{name}: there is no method `{method}` (`{code}`)");
                    }
                }
            }
        }
    }
    assert!(calls > 60, "only {calls} calls were found");
}
