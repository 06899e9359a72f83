//! Diesel's own command-line tool agrees with the committed schema and with `pointsman::migrate`.

use std::path::{Path, PathBuf};
use std::process::Command;

use pointsman::migrate;
use pointsman::payments::MIGRATIONS;

use super::NAMES;
use crate::support::{connect, start_cluster};

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/payments/schema.rs");

/// Finds the tool: `DIESEL_CLI`, the folder of `scripts/install-diesel-cli`, or the search path.
///
/// If it is missing the test fails, because a test that skips itself proves nothing.
fn tool() -> PathBuf {
    let name = "diesel";
    let installed = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools").join("bin").join(name);
    let named = std::env::var_os("DIESEL_CLI").map(PathBuf::from);
    let search = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&search).map(|folder| folder.join(name));
    let mut candidates = named.into_iter().chain([installed]).chain(found);
    candidates.find(|path| path.is_file()).expect(
        "Diesel's command-line tool is missing: run scripts/install-diesel-cli, or name it with DIESEL_CLI",
    )
}

/// Runs the tool on a database and returns what it prints.
#[track_caller]
fn diesel(url: &str, arguments: &[&str]) -> String {
    let output = Command::new(tool())
        .args(arguments)
        .env("DATABASE_URL", url)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("the tool starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "diesel {arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn run_redo_and_print_schema_agree_with_the_committed_schema() {
    let cluster = start_cluster(0).await;
    let url = cluster.primary().url();
    // `--locked-schema` fails if the tool would write another schema than the committed one.
    diesel(&url, &["migration", "run", "--locked-schema"]);
    diesel(&url, &["migration", "redo", "--all", "--locked-schema"]);
    let committed = std::fs::read_to_string(SCHEMA).expect("the committed schema");
    assert_eq!(diesel(&url, &["print-schema"]), committed);
    // Nothing is left for the program.
    let set = connect(&cluster).await;
    assert_eq!(migrate::run(set.write().await.unwrap(), MIGRATIONS).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn the_diesel_tool_sees_and_reverts_migrations_of_the_program() {
    let cluster = start_cluster(0).await;
    let url = cluster.primary().url();
    let set = connect(&cluster).await;
    migrate::run(set.write().await.unwrap(), MIGRATIONS).await.unwrap();
    assert_eq!(diesel(&url, &["migration", "pending"]).trim(), "false");
    assert_eq!(diesel(&url, &["print-schema"]), std::fs::read_to_string(SCHEMA).unwrap());

    // With the project's configuration, the tool would write the schema of an empty database over the committed one.
    let folder = tempfile::tempdir().unwrap();
    let configuration = folder.path().join("diesel.toml");
    std::fs::write(&configuration, "[migrations_directory]\ndir = \"migrations\"").unwrap();
    let configuration = configuration.to_str().unwrap();
    let migrations = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    diesel(
        &url,
        &["migration", "revert", "--all", "--config-file", configuration, "--migration-dir", migrations],
    );
    let left = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S') \
                AND relname <> '__diesel_schema_migrations'";
    assert_eq!(cluster.primary().query_value(left).await.unwrap(), "0", "down.sql takes back all of up.sql");
    let functions = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace";
    assert_eq!(cluster.primary().query_value(functions).await.unwrap(), "0");
    assert_eq!(migrate::pending(&set.write().await.unwrap(), MIGRATIONS).await.unwrap(), NAMES);
}
