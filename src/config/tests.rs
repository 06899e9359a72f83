//! The files that ship with the crate agree with the configuration.

use super::reader::{Documented, env_name};
use super::{Config, documentation, nodes, sources};

const EXAMPLE: &str = include_str!("../../pointsman.example.toml");
const GUIDE: &str = include_str!("../../docs/configuration.md");
const DOTENV: &str = include_str!("../../.env.example");

const URL: &str = "postgres://app:secret@db-1/payments";

fn config(file: Option<&str>) -> Config {
    Config::from_sources(file, [("DATABASE_URL".to_owned(), URL.to_owned())]).unwrap()
}

/// Returns the example's lines that set a value, each after its table's name.
fn assignments(text: &str) -> Vec<String> {
    let mut table = String::new();
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            table = format!("{name}.");
        } else if line.contains(" = ") && !line.starts_with('#') {
            found.push(format!("{table}{line}"));
        }
    }
    found
}

#[test]
fn the_example_file_is_the_defaults() {
    assert_eq!(config(Some(EXAMPLE)), config(None));
    assert_eq!(config(None), Config::builder().primary(URL).build().unwrap());
}

#[test]
fn the_example_file_has_every_key_with_its_default() {
    let assignments = assignments(EXAMPLE);
    for Documented { path, default, .. } in documentation::settings() {
        match default {
            Ok(default) => {
                let line = format!("{path} = {default}");
                assert!(assignments.contains(&line), "`{line}` is missing in {assignments:#?}");
            }
            Err(_) => {
                // Below the heading of its table, if it has one.
                let (table, key) = path.rsplit_once('.').unwrap_or(("", &path));
                let mut tables = EXAMPLE.split("\n[");
                let text = match table {
                    "" => tables.next(),
                    _ => tables.find(|text| text.starts_with(&format!("{table}]"))),
                };
                let is_there = text.is_some_and(|text| text.contains(&format!("\n# {key} = ")));
                assert!(is_there, "`# {path} = …` is missing");
            }
        }
    }
}

#[test]
fn the_guide_has_every_key_with_its_variable_and_default() {
    for Documented { path, default, .. } in documentation::settings() {
        let default =
            default.map_or_else(|_| "–".to_owned(), |default| format!("`{}`", default.replace('"', "")));
        let row = format!("| `{path}` | `{}` | {default} |", env_name(&path));
        assert!(GUIDE.contains(&row), "the row `{row}` is missing in docs/configuration.md");
    }
    for Documented { path, .. } in nodes::table_settings() {
        assert!(GUIDE.contains(&format!("| `{path}` |")), "`{path}` of a node is missing");
    }
}

#[test]
fn the_guide_has_no_key_that_does_not_exist() {
    let settings = documentation::settings().into_iter().chain(nodes::table_settings());
    let known: Vec<_> = settings.map(|known| known.path).collect();
    for row in GUIDE.lines().filter_map(|line| line.strip_prefix("| `")) {
        let path = row.split('`').next().unwrap();
        assert!(known.iter().any(|known| known == path), "`{path}` is no key");
    }
}

/// Returns the variables of one block, including those that are commented out.
fn variables(block: &str) -> Vec<(String, String)> {
    let assignment = |line: &str| {
        let (name, value) = line.trim_start_matches("# ").split_once('=')?;
        let named = !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        named.then(|| (name.to_owned(), value.trim_matches('\'').to_owned()))
    };
    block.lines().filter_map(assignment).collect()
}

#[test]
fn every_block_of_the_dotenv_example_is_a_configuration() {
    let blocks: Vec<_> = DOTENV.split("\n# == ").skip(1).collect();
    assert!(blocks.len() >= 5, "the blocks are there");
    // The files in a block are on another machine.
    let folder = tempfile::tempdir().unwrap();
    let (pem, secret) = (folder.path().join("some.pem"), folder.path().join("secret"));
    std::fs::write(&pem, "-----BEGIN CERTIFICATE-----\n").unwrap();
    std::fs::write(&secret, "change-me\n").unwrap();
    let here = |(name, value): (String, String)| {
        if name.ends_with("_FILE") {
            return (name, secret.to_str().unwrap().to_owned());
        }
        let parts = value.split_inclusive(['&', ',', '?']).map(|part| match part.split_once("=/etc/") {
            Some((parameter, path)) => {
                let rest = path.find(['&', ',']).map_or("", |end| &path[end..]);
                format!("{parameter}={}{rest}", pem.display())
            }
            None => part.to_owned(),
        });
        (name, parts.collect())
    };
    for block in blocks {
        let title = block.lines().next().unwrap();
        let env: Vec<_> = variables(block).into_iter().map(here).collect();
        assert!(!env.is_empty(), "{title} sets nothing");
        match Config::from_sources(None, env) {
            Ok(config) => assert!(!config.to_string().is_empty()),
            // Without the feature, this is the only acceptable issue.
            Err(error) if cfg!(not(feature = "tls")) => {
                assert!(
                    error.issues().iter().all(|issue| issue.remedy.contains("`tls`")),
                    "{title}: {error}"
                );
            }
            Err(error) => panic!("{title}: {error}"),
        }
    }
}

#[test]
fn the_shapes_that_the_dotenv_example_promises_are_in_it() {
    for shape in ["rds.amazonaws.com", "sslmode=verify-full", "sslrootcert=", "host=/cloudsql/", "127.0.0.1"]
    {
        assert!(DOTENV.contains(shape), "{shape}");
    }
}

#[test]
fn what_a_url_leaves_open_comes_from_the_settings() {
    let url = "postgres://app@db-2/payments?application_name=own&connect_timeout=1&options=-c%20jit%3Doff\
               &keepalives_idle=99";
    let config = Config::builder().primary(URL).replica(url).application_name("shop").build().unwrap();
    let [primary, replica] = config.nodes() else { panic!("two nodes") };

    assert_eq!(primary.postgres().get_application_name(), Some("shop"));
    assert_eq!(primary.postgres().get_connect_timeout(), Some(&config.timeouts().connect));
    assert_eq!(primary.postgres().get_keepalives_idle(), config.timeouts().tcp_keepalive_idle);
    assert_eq!(primary.user_options(), None);

    assert_eq!(replica.postgres().get_application_name(), Some("own"));
    assert_eq!(replica.postgres().get_connect_timeout().map(|own| own.as_secs()), Some(1), "the shorter");
    assert_eq!(replica.postgres().get_keepalives_idle().as_secs(), 99);
    assert_eq!(replica.user_options(), Some("-c jit=off"));
    assert_eq!(replica.postgres().get_options(), None, "left free for each kind of session");
}

#[test]
fn the_server_is_asked_for_tls_as_the_mode_needs_it() {
    use tokio_postgres::config::SslMode;
    let asked = |query: &str| {
        let url = format!("postgres://db/app?{query}");
        Config::builder().primary(url).build().map(|config| config.nodes()[0].postgres().get_ssl_mode())
    };
    assert_eq!(asked("sslmode=disable"), Ok(SslMode::Disable));
    let (prefer, require) = if cfg!(feature = "tls") {
        (SslMode::Prefer, Some(SslMode::Require))
    } else {
        (SslMode::Disable, None)
    };
    assert_eq!(asked(""), Ok(prefer));
    for mode in ["require", "verify-ca", "verify-full"] {
        match (asked(&format!("sslmode={mode}")), require) {
            (found, Some(require)) => assert_eq!(found, Ok(require), "{mode}"),
            (Err(error), None) => assert!(error.to_string().contains("enable the feature `tls`"), "{error}"),
            (Ok(_), None) => panic!("{mode} needs the feature"),
        }
    }
}

#[test]
fn a_variable_names_the_file_which_then_has_to_exist() {
    let env = |file: &str| {
        vec![("POINTSMAN_CONFIG".to_owned(), file.to_owned()), ("DATABASE_URL".to_owned(), URL.to_owned())]
    };
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/pointsman.example.toml");
    assert_eq!(sources::load_with(None, env(example), Vec::new()), Ok(config(None)));

    let error = sources::load_with(None, env("/nowhere/pointsman.toml"), Vec::new()).unwrap_err();
    assert_eq!(error.issues().len(), 1, "{error}");
    assert_eq!(error.issues()[0].key, "POINTSMAN_CONFIG");
    assert!(error.issues()[0].problem.contains("names /nowhere/pointsman.toml"), "{error}");

    // The argument is the more specific of the two.
    let path = std::path::Path::new(example);
    assert_eq!(sources::load_with(Some(path), env("/nowhere"), Vec::new()), Ok(config(None)));
}

#[test]
fn a_memory_file_is_named_by_the_path_of_a_file() {
    let memory = |path: &str| Config::builder().primary(URL).memory_file(path).build();
    for path in ["memory", "/var/lib/payments/memory", "./memory"] {
        assert_eq!(memory(path).unwrap().memory_file(), Some(path.as_ref()));
        let file = format!("[topology]\nmemory_file = {path:?}");
        assert_eq!(config(Some(&file)).memory_file(), Some(path.as_ref()));
    }
    for path in ["", "/", "/var/lib/payments/", "..", URL] {
        let error = memory(path).unwrap_err();
        assert_eq!(error.issues()[0].key, "topology.memory_file", "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    assert_eq!(config(Some("[topology]\nmemory_file = \"none\"")).memory_file(), None);
}
