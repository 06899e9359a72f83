//! Configuration, as a user of the crate meets it.

mod files;
mod issues;
mod secrets;
mod urls;

use std::time::Duration;

use pointsman::config::{
    Backoff, Fallback, InitialRole, NodeConfig, PoolSettings, ProbeSettings, ReadSettings, TimeoutSettings,
    WriteSettings,
};
use pointsman::{Config, ConfigError};

const URL: &str = "postgres://app:secret@db-1/payments";

/// A password whose special characters end it early if it isn't encoded.
const PASSWORD: &str = "kestrel@walrus/gannet?puffin=1";
const ENCODED: &str = "kestrel%40walrus%2Fgannet%3Fpuffin%3D1";
const PIECES: [&str; 4] = ["kestrel", "walrus", "gannet", "puffin"];

fn read(file: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::from_sources(Some(file), env.iter().map(|(name, value)| (name.to_string(), value.to_string())))
}

/// Reads a file beside a valid `DATABASE_URL`.
fn with_url(file: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    read(file, &[&[("DATABASE_URL", URL)], env].concat())
}

fn keys(error: &ConfigError) -> Vec<&str> {
    error.issues().iter().map(|issue| issue.key.as_str()).collect()
}

#[track_caller]
fn assert_secret(shown: &str) {
    for piece in PIECES {
        assert!(!shown.contains(piece), "`{piece}` of the password is in: {shown}");
    }
}

// --- where values come from

#[test]
fn two_variables_are_enough() {
    let env =
        [("DATABASE_URL", URL), ("DATABASE_REPLICA_URL", "postgres://db-2/a, postgresql://db-3:6432/a,")];
    let config = read("", &env).unwrap();
    let nodes: Vec<_> = config.nodes().iter().map(|node| (node.name(), node.initial_role())).collect();
    assert_eq!(
        nodes,
        [
            ("db-1:5432", InitialRole::Primary),
            ("db-2:5432", InitialRole::Replica),
            ("db-3:6432", InitialRole::Replica)
        ]
    );
    assert!(config.has_replicas());
}

#[test]
fn one_server_is_enough_and_an_empty_variable_is_not_set() {
    let config = with_url("", &[("DATABASE_REPLICA_URL", ""), ("POINTSMAN_POOL__MAX_SIZE", " ")]).unwrap();
    assert!(!config.has_replicas());
    assert_eq!(config.pool(), &PoolSettings::default());
    assert_eq!(config.backoff(), Config::builder().primary(URL).build().unwrap().backoff());
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let file = r#"
        database_url = "postgres://from-the-file/app"
        database_replica_url = ["postgres://r-1/app", "postgres://r-2/app"]
        zone = "a"
        [pool]
        max_size = 5
        idle_timeout = "1min"
        [writes.retry_backoff]
        max = "1s"
        [timeouts]
        read_statement = "3s"
    "#;
    let env = [
        ("DATABASE_URL", URL),
        ("POINTSMAN_POOL__MAX_SIZE", "20"),
        ("POINTSMAN_WRITES__RETRY_BACKOFF__INITIAL", "7ms"),
        ("POINTSMAN_TIMEOUTS__READ_STATEMENT", "none"),
        ("POINTSMAN_READS__PREFER_ZONE", "false"),
        ("POINTSMAN_READS__FALLBACK", "always"),
        ("HOME", "/root"),
        ("POINTSMAN_TESTKIT_USER", "postgres"),
    ];
    let config = read(file, &env).unwrap();
    assert_eq!(config.nodes()[0].host(), "db-1");
    assert_eq!(config.nodes().len(), 3, "the replicas of the file stay");
    assert_eq!(config.zone(), Some("a"));
    assert_eq!(
        config.pool(),
        &PoolSettings { max_size: 20, idle_timeout: Duration::from_secs(60), ..PoolSettings::default() }
    );
    let retry =
        Backoff::new(Duration::from_millis(7), Duration::from_secs(1)).unwrap().with_jitter(1.0).unwrap();
    assert_eq!(config.writes().retry_backoff, retry);
    assert_eq!(config.timeouts().read_statement, None);
    assert!(!config.reads().prefer_zone);
    assert_eq!(config.reads().fallback, Fallback::Always);
}

/// The classic schedule: 2, 4, 8, 16 and 32 seconds, five attempts, no jitter.
fn classic() -> Backoff {
    Backoff::new(Duration::from_secs(2), Duration::from_secs(32)).unwrap().with_attempts(5)
}

#[test]
fn the_classic_backoff_can_be_written_down() {
    let file = "[backoff]\ninitial = \"2s\"\nmax = \"32s\"\njitter = 0\nattempts = 5";
    assert_eq!(with_url(file, &[]).unwrap().backoff(), &classic());
}

#[test]
fn a_heading_without_keys_is_harmless() {
    let config = with_url("[pool]\n[writes.retry_backoff]\n", &[("POINTSMAN_POOL__MAX_SIZE", "3")]).unwrap();
    assert_eq!(config.pool().max_size, 3);
}

#[test]
fn a_named_file_is_read_and_has_to_exist() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    let error = Config::from_file(&path).unwrap_err();
    assert_eq!(error.issues()[0].key, "configuration file");
    assert!(error.issues()[0].problem.contains("not found"), "{error}");
    // The error for `--config /nope` had no path, so a typo in it could not be seen.
    assert!(error.issues()[0].problem.contains(path.to_str().unwrap()), "{error}");

    std::fs::write(&path, "this is kestrel, not TOML").unwrap();
    let error = Config::from_file(&path).unwrap_err();
    assert_eq!(error.issues()[0].key, path.to_str().unwrap());
    assert_secret(&error.to_string());

    std::fs::write(&path, format!("database_url = \"{URL}\"\n[pool]\nmax_size = 3")).unwrap();
    assert_eq!(Config::from_file(&path).unwrap().pool().max_size, 3);
}

// --- nodes

#[test]
fn nodes_can_be_described_in_detail() {
    let file = r#"
        [[nodes]]
        url_env = "DATABASE_URL"
        role = "primary"
        zone = "a"
        [[nodes]]
        url = "postgres://db-2/payments"
        name = "reports"
        tags = ["analytics", "tier:2"]
        weight = 3
    "#;
    let config = with_url(file, &[]).unwrap();
    let [primary, reports] = config.nodes() else { panic!("two nodes") };
    assert_eq!((primary.name(), primary.zone(), primary.weight()), ("db-1:5432", Some("a"), 1));
    assert_eq!(reports.initial_role(), InitialRole::Replica);
    assert_eq!((reports.name(), reports.weight()), ("reports", 3));
    assert_eq!(reports.tags(), ["analytics", "tier:2"]);
}

#[test]
fn the_commented_nodes_of_the_example_file_work() {
    let example = include_str!("../../pointsman.example.toml");
    let nodes = &example[example.find("# [[nodes]]").expect("the example has nodes")..];
    let file = nodes.replace("# ", "").replace("#\n", "\n");
    let config = with_url(&file, &[("REPORTS_URL", "postgres://db-2/payments")]).unwrap();
    assert_eq!(config.nodes().len(), 2);
    assert_eq!(config.nodes()[1].name(), "reports");
}

#[test]
fn issues_of_nodes_name_the_table_and_the_key() {
    let file = r#"
        [[nodes]]
        url = "postgres://db-1/payments"
        role = "master"
        [[nodes]]
        weigth = 2
        [[nodes]]
        url_env = "REPORTS_URL"
        tags = "analytics"
        [[nodes]]
        url = "postgres://db-1/payments"
        url_env = "REPORTS_URL"
        [[nodes]]
        url = "mysql://db-1/payments"
        weight = "2"
    "#;
    let error = read(file, &[]).unwrap_err();
    assert_eq!(
        keys(&error),
        [
            "nodes[0].role",
            "nodes[1].weigth",
            "nodes[1]",
            "nodes[2].tags",
            "nodes[2].url_env",
            "nodes[3]",
            "nodes[4].weight",
            "nodes[4].url"
        ],
        "{error}"
    );
    assert_eq!(error.issues()[1].remedy, "did you mean `nodes[1].weight`?");
}

#[test]
fn nodes_that_contradict_each_other_are_refused() {
    let nodes = |second: &str| {
        let first = "[[nodes]]\nurl = \"postgres://db-1/a\"\nrole = \"primary\"\nname = \"one\"\n";
        let error = read(&format!("{first}[[nodes]]\n{second}"), &[]).unwrap_err();
        assert_eq!(keys(&error), ["nodes[1]"], "{error}");
        error.to_string()
    };
    assert!(nodes("url = \"postgres://DB-1:5432/b\"").contains("is the same server as nodes[0]"));
    assert!(nodes("url = \"postgres://db-2/a\"\nname = \"one\"").contains("the same name as nodes[0]"));
    assert!(
        nodes("url = \"postgres://db-2/a\"\nrole = \"primary\"").contains("is a primary, as is nodes[0]")
    );
    assert!(nodes("url = \"postgres://db-2/a\"\nweight = 0").contains("not within 1 to 1000"));
    assert!(
        nodes("url = \"postgres://db-2/a\"\nzone = \"eu west\"").contains("zone that is not a plain word")
    );
    assert!(nodes("url = \"postgres://db-2/a\"\nname = \"\"").contains("name that is not a plain word"));
    assert!(nodes("url = \"postgres://db-2/a\"\ntags = [\"a b\"]").contains("tag that is not a plain word"));
}

#[test]
fn urls_beside_nodes_are_refused_unless_a_node_takes_them() {
    let file = "[[nodes]]\nurl = \"postgres://db-9/a\"\nrole = \"primary\"";
    let error = with_url(file, &[("DATABASE_REPLICA_URL", "postgres://db-2/a")]).unwrap_err();
    assert_eq!(keys(&error), ["DATABASE_URL", "DATABASE_REPLICA_URL"], "{error}");
}

#[test]
fn a_missing_primary_is_named() {
    let error = read("", &[]).unwrap_err();
    assert_eq!(keys(&error), ["DATABASE_URL"]);
    assert!(error.to_string().contains("DATABASE_URL=postgres://user:password@host/database"), "{error}");
    let error = read("", &[("DATABASE_REPLICA_URL", URL)]).unwrap_err();
    assert_eq!(keys(&error), ["DATABASE_URL"]);
}

#[test]
fn a_replica_that_is_the_primary_is_refused() {
    let error = with_url("", &[("DATABASE_REPLICA_URL", URL)]).unwrap_err();
    assert_eq!(keys(&error), ["DATABASE_REPLICA_URL"]);
    assert!(error.to_string().contains("without replicas the primary serves the reads"), "{error}");
}

// --- the builder

#[test]
fn the_builder_takes_everything_and_checks_it_the_same_way() {
    let config = Config::builder()
        .node(NodeConfig::primary(URL).unwrap().with_name("main").with_zone("a"))
        .replica("postgres://db-2/payments")
        .zone("b")
        .application_name("shop")
        .pool(PoolSettings { max_size: 2, ..PoolSettings::default() })
        .timeouts(TimeoutSettings { checkout: Duration::from_secs(1), ..TimeoutSettings::default() })
        .probe(ProbeSettings { interval: Duration::from_secs(1), ..ProbeSettings::default() })
        .backoff(classic())
        .reads(ReadSettings { fallback: Fallback::Never, ..ReadSettings::default() })
        .writes(WriteSettings { retries: 0, ..WriteSettings::default() })
        .build()
        .unwrap();
    assert_eq!(config.nodes()[0].name(), "main");
    assert_eq!((config.zone(), config.application_name()), (Some("b"), "shop"));
    assert_eq!((config.pool().max_size, config.writes().retries), (2, 0));
    assert_eq!(config.timeouts().checkout, config.probe().interval);
    assert_eq!(config.backoff(), &classic());
    assert_eq!(config.reads().fallback, Fallback::Never);
    assert_eq!(
        config.to_string(),
        "primary db-1:5432/payments (tls prefer), replica db-2:5432/payments (tls prefer); 2 connections per pool"
    );

    let error = Config::builder()
        .replica("postgres://db-2")
        .replica("db-3")
        .pool(PoolSettings { max_size: 0, ..PoolSettings::default() })
        .probe(ProbeSettings { interval: Duration::MAX, timeout: Duration::MAX, ..ProbeSettings::default() })
        .build()
        .unwrap_err();
    assert_eq!(keys(&error), ["replica() number 2", "pool.max_size", "probe.interval", "probe.timeout"]);
    assert_eq!(keys(&Config::builder().build().unwrap_err()), ["primary()"]);
}

#[test]
fn a_changed_password_is_a_changed_configuration() {
    let config = |password: &str| {
        Config::builder().primary(format!("postgres://app:{password}@db/a")).build().unwrap()
    };
    assert_eq!(config("one"), config("one"));
    assert_ne!(config("one"), config("two"));
}
