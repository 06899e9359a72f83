//! Generates the setting lists of `docs/configuration.md` and the example file.

use std::fmt::Write as _;
use std::{env, fs};

use super::nodes;
use super::reader::{Documented, Reader, env_name};

/// Returns every setting outside `[[nodes]]`.
pub(super) fn settings() -> Vec<Documented> {
    let mut reader = Reader::default();
    nodes::read(&mut reader, &[]);
    reader.group::<super::settings::Settings>();
    reader.known
}

/// Returns the paragraphs of a setting: its meaning, and its default's reason.
fn paragraphs(doc: &[&str]) -> Vec<String> {
    let paragraphs = doc.split(|line| line.is_empty());
    paragraphs.map(|lines| lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")).collect()
}

fn default_cell(setting: &Documented) -> String {
    setting
        .default
        .as_ref()
        .map_or_else(|_| "–".to_owned(), |default| format!("`{}`", default.replace('"', "")))
}

/// Returns a table for each heading.
fn tables(settings: &[Documented]) -> String {
    let mut text = String::new();
    let mut heading = "";
    for setting in settings {
        if setting.heading != heading {
            heading = setting.heading;
            let _ = write!(
                text,
                "\n### {heading}\n\n| TOML | environment | default | values | meaning, and reason of the default |\n\
                 |---|---|---|---|---|\n"
            );
        }
        let Documented { path, doc, values, .. } = setting;
        let (default, doc) = (default_cell(setting), paragraphs(doc).join(" "));
        let _ = writeln!(text, "| `{path}` | `{}` | {default} | {values} | {doc} |", env_name(path));
    }
    text
}

fn table_of_a_node() -> String {
    let mut text = "\n| key | default | meaning |\n|---|---|---|\n".to_owned();
    for setting in nodes::table_settings() {
        let doc = paragraphs(setting.doc).join(" ");
        let _ = writeln!(text, "| `{}` | {} | {doc} |", setting.path, default_cell(&setting));
    }
    text
}

/// Returns the example file's settings, each under its meaning.
fn example(settings: &[Documented]) -> String {
    let mut text = String::new();
    let mut table = "";
    for setting in settings {
        let (of, key) = setting.path.rsplit_once('.').unwrap_or(("", &setting.path));
        if of != table {
            let _ = writeln!(text, "\n[{of}]");
            table = of;
        }
        let mut line = "#".to_owned();
        for word in paragraphs(setting.doc)[0].replace('`', "").split(' ') {
            if line.len() + word.len() > 98 {
                let _ = writeln!(text, "{line}");
                line = "#".to_owned();
            }
            let _ = write!(line, " {word}");
        }
        let _ = match &setting.default {
            Ok(default) => writeln!(text, "{line}\n{key} = {default}"),
            Err(example) => writeln!(text, "{line}\n# {key} = {example}"),
        };
    }
    text
}

/// Replaces the text between the lines that begin and end with these marks.
fn replace(text: &str, mark: &str, generated: &str) -> String {
    let begin = text.find(&format!("begin {mark}")).expect("a mark");
    let begin = begin + text[begin..].find('\n').expect("the end of its line") + 1;
    let end = text[..text.find(&format!("end {mark}")).expect("a mark")].rfind('\n').expect("a line") + 1;
    format!("{}{}\n{}", &text[..begin], generated.trim_end(), &text[end..])
}

/// The guide and the example file match the declarations. `UPDATE_DOCS=1` writes them instead.
#[test]
fn the_guide_and_the_example_file_are_generated() {
    let settings = settings();
    for (path, generated) in [
        ("docs/configuration.md", vec![("settings", tables(&settings)), ("nodes", table_of_a_node())]),
        ("pointsman.example.toml", vec![("settings", example(&settings))]),
    ] {
        let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
        let found = fs::read_to_string(&path).unwrap();
        let made = generated.iter().fold(found.clone(), |text, (mark, made)| replace(&text, mark, made));
        if env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&path, made).unwrap();
        } else {
            let remedy = "run `UPDATE_DOCS=1 cargo test --all-features --lib documentation`";
            assert!(found == made, "{path} is not that of the declarations: {remedy}");
        }
    }
}
