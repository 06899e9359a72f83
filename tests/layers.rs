//! Modules form layers: each one uses only what lies below it.
//!
//! The test reads the tokens of every file in `src`, so a path counts wherever it stands: in a `use` tree, in an
//! expression, inside a macro. What a comment or a documentation link says does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The layers, from the lowest to the highest; modules of one layer do not use each other.
const LAYERS: [&[&str]; 14] = [
    &["backoff", "defect", "intent", "limit", "lsn", "timeout"],
    &["stats", "token"],
    &["config"],
    &["error", "options"],
    &["wire"],
    &["pool"],
    &["topology"],
    &["statement"],
    &["conn"],
    &["run_query"],
    &["replica_set"],
    &["causal"],
    &["migrate", "testkit"],
    &["payments"],
];

/// Parts of the crate that only re-export or document, so they may name everything.
const OUTSIDE: [&str; 3] = ["lib", "guide", "prelude"];

/// A path from one file to a module of the crate.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Arrow {
    file: PathBuf,
    from: String,
    to: String,
}

#[test]
fn each_module_uses_only_lower_layers() {
    let arrows = arrows(&source());
    assert!(arrows.len() > 200, "only {} paths were found", arrows.len());
    let upward: Vec<String> = arrows
        .iter()
        .filter(|arrow| arrow.from != arrow.to && layer(&arrow.to) >= layer(&arrow.from))
        .map(|arrow| format!("{}: {} uses {}", arrow.file.display(), arrow.from, arrow.to))
        .collect();
    assert!(upward.is_empty(), "these run up:\n{}", upward.join("\n"));
}

#[test]
fn every_module_has_its_layer() {
    let modules = modules(&source());
    let layered: BTreeSet<&str> = LAYERS.iter().flat_map(|layer| layer.iter().copied()).collect();
    let missing: Vec<_> = modules.iter().filter(|module| !layered.contains(module.as_str())).collect();
    let gone: Vec<_> = layered.iter().filter(|module| !modules.contains(**module)).collect();
    assert!(missing.is_empty() && gone.is_empty(), "without a layer: {missing:?}; gone: {gone:?}");
}

#[test]
fn the_architecture_page_shows_the_folder() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let listed: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("src/")?.split_whitespace().next())
        .filter_map(|file| Some(file.strip_suffix(".rs")?.to_owned()))
        .filter(|module| !OUTSIDE.contains(&module.as_str()) && module != "main")
        .collect();
    assert_eq!(listed, modules(&source()));
}

#[test]
fn an_arrow_that_runs_up_is_found_in_every_form() {
    let exports = BTreeMap::from([("Conn".to_owned(), "conn".to_owned())]);
    let found = |text: &str, depth| {
        let tokens = TokenStream::from_str(text).expect("Rust");
        let mut paths = Vec::new();
        collect(tokens, depth, &exports, &mut paths);
        paths
    };
    assert_eq!(found("use crate::topology::Role;", 1), ["topology"]);
    assert_eq!(found("use crate::{Conn, topology::{Role, Lag}, pool};", 1), ["conn", "topology", "pool"]);
    assert_eq!(found("fn f() { let x = matches!(y, crate::conn::Z { .. }); }", 1), ["conn"]);
    assert_eq!(found("use super::topology::Role;", 1), ["topology"]);
    assert_eq!(
        found("use super::sibling::Thing; mod tests { use super::super::super::pool::Pool; }", 2),
        ["pool"]
    );
    assert_eq!(found("pub(in crate::topology) fn f() {} /// [`x`](crate::conn)\nstruct S;", 1), [""; 0]);
}

fn layer(module: &str) -> usize {
    LAYERS.iter().position(|layer| layer.contains(&module)).unwrap_or_else(|| panic!("{module} has no layer"))
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The modules right below the crate's root.
fn modules(source: &Path) -> BTreeSet<String> {
    files(source)
        .iter()
        .map(|file| module_path(source, file)[0].clone())
        .filter(|module| !OUTSIDE.contains(&module.as_str()) && module != "main" && module != "bin")
        .collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// `src/pool/queue.rs` is `["pool", "queue"]`.
fn module_path(source: &Path, file: &Path) -> Vec<String> {
    let relative = file.strip_prefix(source).expect("below src").with_extension("");
    relative.iter().map(|part| part.to_string_lossy().into_owned()).collect()
}

fn arrows(source: &Path) -> Vec<Arrow> {
    let exports = exports(source);
    let mut arrows = Vec::new();
    for file in files(source) {
        let module = module_path(source, &file);
        let from = module[0].clone();
        // The program is a separate crate.
        if OUTSIDE.contains(&from.as_str()) || from == "main" || from == "bin" {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("a file");
        let tokens =
            TokenStream::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut paths = Vec::new();
        collect(tokens, module.len(), &exports, &mut paths);
        arrows.extend(paths.into_iter().filter(|to| !OUTSIDE.contains(&to.as_str())).map(|to| Arrow {
            file: file.clone(),
            from: from.clone(),
            to,
        }));
    }
    arrows
}

/// The items that the crate's root re-exports, and the module that each comes from.
fn exports(source: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(source.join("lib.rs")).expect("lib.rs");
    let tokens: Vec<TokenTree> = TokenStream::from_str(&text).expect("Rust").into_iter().collect();
    let mut exports = BTreeMap::new();
    for (at, token) in tokens.iter().enumerate() {
        // `self :: module :: Name`, `self :: module :: part :: Name` or `self :: module :: { Name, … }`
        if is_ident(token, "self")
            && is_path_separator(&tokens[at + 1..])
            && let Some(TokenTree::Ident(module)) = tokens.get(at + 3)
            && is_path_separator(&tokens[at + 4..])
        {
            let mut last = at + 6;
            while is_path_separator(tokens.get(last + 1..).unwrap_or_default()) {
                last += 3;
            }
            match tokens.get(last) {
                Some(TokenTree::Ident(name)) => {
                    exports.insert(name.to_string(), module.to_string());
                }
                Some(TokenTree::Group(group)) => {
                    for name in group.stream() {
                        if let TokenTree::Ident(name) = name {
                            exports.insert(name.to_string(), module.to_string());
                        }
                    }
                }
                _ => {}
            }
        }
    }
    exports
}

/// Collects the modules of the crate that the paths among the tokens lead to.
///
/// `depth` is the number of modules from the crate's root to the tokens.
fn collect(tokens: TokenStream, depth: usize, exports: &BTreeMap<String, String>, paths: &mut Vec<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        // The `crate` of `pub(crate)` is no path, and that of `pub(in crate::…)` is no use.
        if is_ident(&tokens[at], "pub") && is_group(tokens.get(at + 1), Delimiter::Parenthesis) {
            at += 2;
            continue;
        }
        let is_module = is_ident(&tokens[at], "mod") && is_group(tokens.get(at + 2), Delimiter::Brace);
        if is_module {
            if let Some(TokenTree::Group(body)) = tokens.get(at + 2) {
                collect(body.stream(), depth + 1, exports, paths);
            }
            at += 3;
            continue;
        }
        if let Some(after) = root_path(&tokens[at..], depth) {
            match tokens.get(at + after) {
                Some(TokenTree::Ident(name)) => paths.push(resolve(&name.to_string(), exports)),
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    paths.extend(heads(group.stream()).into_iter().map(|name| resolve(&name, exports)));
                }
                _ => {}
            }
            at += after + 1;
            continue;
        }
        if let TokenTree::Group(group) = &tokens[at] {
            collect(group.stream(), depth, exports, paths);
        }
        at += 1;
    }
}

/// Returns the number of tokens of a path's start that leads to the crate's root: `crate::`, or as many `super::` as there are modules.
fn root_path(tokens: &[TokenTree], depth: usize) -> Option<usize> {
    if is_ident(tokens.first()?, "crate") && is_path_separator(&tokens[1..]) {
        return Some(3);
    }
    let supers = (0..)
        .take_while(|i| {
            tokens.get(i * 3).is_some_and(|token| is_ident(token, "super"))
                && is_path_separator(tokens.get(i * 3 + 1..).unwrap_or_default())
        })
        .count();
    (supers > 0 && supers == depth).then_some(supers * 3)
}

/// Returns the first names of the branches of a `use` tree.
fn heads(tree: TokenStream) -> Vec<String> {
    let mut heads = Vec::new();
    let mut is_head = true;
    for token in tree {
        match &token {
            TokenTree::Ident(name) if is_head => {
                heads.push(name.to_string());
                is_head = false;
            }
            TokenTree::Punct(punct) if punct.as_char() == ',' => is_head = true,
            _ => {}
        }
    }
    heads
}

fn resolve(name: &str, exports: &BTreeMap<String, String>) -> String {
    exports.get(name).cloned().unwrap_or_else(|| name.to_owned())
}

fn is_ident(token: &TokenTree, name: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == name)
}

fn is_group(token: Option<&TokenTree>, delimiter: Delimiter) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == delimiter)
}

fn is_path_separator(tokens: &[TokenTree]) -> bool {
    tokens.len() >= 2
        && tokens[..2].iter().all(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ':'))
}
