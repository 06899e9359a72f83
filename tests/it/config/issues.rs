//! Refused settings, and their error messages.

use super::{URL, keys, read, with_url};

#[test]
fn every_issue_is_named_at_once_by_the_key_as_it_was_written() {
    let file = r#"
        zone = 7
        max_size = 3
        [pool]
        max_size = "10"
        max_lifetime = 30
        [reads]
        fallback = "sometimes"
        prefer_zone = "yes"
        max_lag_bytes = -1
        [pol]
        max_size = 4
    "#;
    let env = [
        ("POINTSMAN_PROBE__TIMEOUT", "400"),
        ("POINTSMAN_POOL__IDLE_TIMEOUT", "ten minutes"),
        ("POINTSMAN_BACKOFF__FACTOR", "0.5"),
        ("POINTSMAN_BACKOFF__JITTER", "2"),
        ("POINTSMAN_WRITES__RETRIES", "-1"),
        ("POINTSMAN_WRITE__RETRIES", "3"),
    ];
    let error = with_url(file, &env).unwrap_err();
    let mut found = keys(&error);
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "POINTSMAN_BACKOFF__FACTOR",
            "POINTSMAN_BACKOFF__JITTER",
            "POINTSMAN_POOL__IDLE_TIMEOUT",
            "POINTSMAN_PROBE__TIMEOUT",
            "POINTSMAN_WRITES__RETRIES",
            "POINTSMAN_WRITE__RETRIES",
            "max_size",
            "pol.max_size",
            "pool.max_lifetime",
            "pool.max_size",
            "reads.fallback",
            "reads.max_lag_bytes",
            "reads.prefer_zone",
            "zone",
        ],
        "{error}"
    );
    let listed = error.to_string();
    assert_eq!(listed.lines().count(), 1 + found.len(), "each has a line: {listed}");
    let duration = error.issues().iter().find(|issue| issue.key == "POINTSMAN_PROBE__TIMEOUT").unwrap();
    assert!(duration.remedy.contains("500ms"), "{duration}");
}

#[test]
fn an_unknown_key_suggests_the_nearest_one() {
    let remedy = |file: &str, env: &[(&str, &str)]| {
        let error = with_url(file, env).unwrap_err();
        assert_eq!(error.issues().len(), 1, "{error}");
        error.issues()[0].remedy.clone()
    };
    assert_eq!(remedy("", &[("POINTSMAN_POOL__MAXSIZE", "1")]), "did you mean `POINTSMAN_POOL__MAX_SIZE`?");
    assert_eq!(remedy("", &[("POINTSMAN_POOL_MAX_SIZE", "1")]), "did you mean `POINTSMAN_POOL__MAX_SIZE`?");
    assert_eq!(remedy("", &[("POINTSMAN_MAX_SIZE", "1")]), "did you mean `POINTSMAN_POOL__MAX_SIZE`?");
    assert_eq!(remedy("", &[("POINTSMAN_pool__max_size", "1")]), "did you mean `POINTSMAN_POOL__MAX_SIZE`?");
    assert_eq!(remedy("", &[("POINTSMAN_DATABASE_URL", URL)]), "did you mean `DATABASE_URL`?");
    assert!(remedy("", &[("DATABASE_REPLICA_URLS", URL)]).contains("did you mean `DATABASE_REPLICA_URL`?"));
    assert_eq!(remedy("[timeouts]\nchekout = \"1s\"", &[]), "did you mean `timeouts.checkout`?");
    assert_eq!(remedy("[read]\nmax_lag = \"1s\"", &[]), "did you mean `reads.max_lag`?");
    assert_eq!(remedy("[[node]]\nurl = \"postgres://db/a\"", &[]), "did you mean `nodes`?");
    assert!(remedy("pool = 3", &[]).contains("write `[pool]`"));
    assert!(remedy("pool = 3", &[("POINTSMAN_POOL__MAX_SIZE", "3")]).contains("write `[pool]`"));
    let beside = [("POINTSMAN_POOL", "3"), ("POINTSMAN_POOL__MAX_SIZE", "3")];
    assert!(remedy("", &beside).contains("docs/configuration.md"));
    assert!(remedy("favourite_colour = \"green\"", &[]).contains("docs/configuration.md"));
}

#[test]
fn values_out_of_range_are_refused() {
    for (key, values) in [
        ("POINTSMAN_ZONE", &["eu west", "a/b", "ä"][..]),
        ("POINTSMAN_APPLICATION_NAME", &["näme", "postgres://app@db"]),
        ("POINTSMAN_POOL__MAX_SIZE", &["0", "10001", "4294967296"]),
        ("POINTSMAN_POOL__IDLE_TIMEOUT", &["0s", "2days"]),
        ("POINTSMAN_POOL__MAX_LIFETIME", &["0s", "8days"]),
        ("POINTSMAN_POOL__LIFETIME_JITTER", &["-0.1", "1", "NaN", "inf"]),
        ("POINTSMAN_POOL__MAX_CONCURRENT_CONNECTS", &["0"]),
        ("POINTSMAN_TIMEOUTS__CONNECT", &["0s", "1h"]),
        ("POINTSMAN_TIMEOUTS__CHECKOUT", &["0s", "1h"]),
        // PostgreSQL counts whole milliseconds, and takes 0 for no limit.
        ("POINTSMAN_TIMEOUTS__READ_STATEMENT", &["0s", "999us", "1month"]),
        ("POINTSMAN_TIMEOUTS__WRITE_STATEMENT", &["0s"]),
        ("POINTSMAN_TIMEOUTS__SHUTDOWN", &["2h"]),
        ("POINTSMAN_TIMEOUTS__TCP_KEEPALIVE_IDLE", &["500ms"]),
        ("POINTSMAN_TIMEOUTS__TCP_KEEPALIVE_INTERVAL", &["0s"]),
        ("POINTSMAN_TIMEOUTS__TCP_KEEPALIVE_RETRIES", &["0"]),
        ("POINTSMAN_TIMEOUTS__TCP_USER_TIMEOUT", &["0s"]),
        ("POINTSMAN_PROBE__INTERVAL", &["0s", "2min"]),
        ("POINTSMAN_PROBE__TIMEOUT", &["0s", "2min"]),
        ("POINTSMAN_PROBE__FAILOVER_INTERVAL", &["9ms", "101ms"]),
        ("POINTSMAN_BACKOFF__INITIAL", &["0s", "1ns", "2s"]),
        ("POINTSMAN_BACKOFF__MAX", &["50ms", "11min"]),
        ("POINTSMAN_BACKOFF__FACTOR", &["0.9"]),
        ("POINTSMAN_BACKOFF__JITTER", &["1.1"]),
        ("POINTSMAN_READS__MAX_FALLBACK", &["0"]),
        ("POINTSMAN_READS__MAX_LAG", &["0s", "8days", "600ms"]),
        ("POINTSMAN_READS__MAX_LAG_BYTES", &["0"]),
        ("POINTSMAN_READS__HEDGE_BUDGET", &["1.5", "-1"]),
        ("POINTSMAN_READS__HEDGE_MIN_DELAY", &["0s"]),
        ("POINTSMAN_READS__BASE_EJECTION_TIME", &["0s", "31s"]),
        ("POINTSMAN_READS__MAX_EJECTION_TIME", &["0s", "999ms"]),
        ("POINTSMAN_READS__SLOW_START", &["11min"]),
        ("POINTSMAN_WRITES__FAILOVER_WAIT", &["11min"]),
        ("POINTSMAN_WRITES__MAX_WAITERS", &["0"]),
        ("POINTSMAN_WRITES__RETRIES", &["1001"]),
        ("POINTSMAN_WRITES__RETRY_BACKOFF__INITIAL", &["0s", "1s"]),
        ("POINTSMAN_WRITES__RETRY_BACKOFF__MAX", &["2min", "1ms"]),
    ] {
        for value in values {
            let error = with_url("", &[(key, value)]).unwrap_err();
            assert_eq!(keys(&error), [key], "{key}={value}: {error}");
        }
    }
}

#[test]
fn an_invalid_value_does_not_make_its_neighbours_look_wrong() {
    // With the default interval instead of the invalid one, the lag would be too short.
    let file = "[probe]\ninterval = \"ten\"\ntimeout = \"20ms\"\n[reads]\nmax_lag = \"100ms\"";
    assert_eq!(keys(&with_url(file, &[]).unwrap_err()), ["probe.interval"]);
    let file = "[backoff]\ninitial = \"soon\"\nmax = \"50ms\"";
    assert_eq!(keys(&with_url(file, &[]).unwrap_err()), ["backoff.initial"]);
    // A missing primary is not reported while a node is invalid.
    assert_eq!(keys(&read("", &[("DATABASE_URL", "postgres://")]).unwrap_err()), ["DATABASE_URL"]);
    let error = read("[pool]\nmax_size = ten", &[]).unwrap_err();
    assert_eq!(keys(&error), ["pointsman.toml"]);
    assert_eq!(error.issues()[0].problem, "is not valid TOML at line 2, column 12");
}

#[test]
fn contradictions_name_both_keys_and_blame_what_was_written() {
    let error = with_url("", &[("POINTSMAN_PROBE__INTERVAL", "20s")]).unwrap_err();
    assert_eq!(keys(&error), ["POINTSMAN_PROBE__INTERVAL"]);
    assert!(error.to_string().contains("contradicts reads.max_lag and probe.timeout"), "{error}");
}

/// The limit accepted 700 ms, and replicas that missed nothing were taken out and in again twice a second.
#[test]
fn a_max_lag_that_healthy_replicas_exceed_is_refused_with_the_smallest_one() {
    let error = with_url("[reads]\nmax_lag = \"700ms\"", &[]).unwrap_err();
    assert_eq!(keys(&error), ["reads.max_lag"]);
    assert!(error.to_string().contains("950ms behind: that is the smallest usable value"), "{error}");
    with_url("[reads]\nmax_lag = \"950ms\"", &[]).unwrap();
    with_url("[probe]\ninterval = \"200ms\"\ntimeout = \"100ms\"\n[reads]\nmax_lag = \"450ms\"", &[])
        .unwrap();
}

#[test]
fn without_fallback_its_cap_does_not_matter() {
    with_url("[reads]\nfallback = \"never\"\nmax_fallback = 0", &[]).unwrap();
}

/// The library that merges the sources takes `a[9]` for the tenth value of an array, and makes room for it.
#[test]
fn a_key_with_an_index_is_unknown_however_large_the_index_is() {
    let index = "[99999999999999]";
    let env = [
        (format!("POINTSMAN_POOL__MAX_SIZE{index}"), "2"),
        (format!("DATABASE_REPLICA_URLS{index}"), "postgres://db-2/a"),
    ];
    let env = env.each_ref().map(|(name, value)| (name.as_str(), *value));
    let error =
        with_url(&format!("\"zone{index}\" = \"a\"\n[pool]\n\"max_size{index}\" = 2"), &env).unwrap_err();
    let mut found = keys(&error);
    found.sort_unstable();
    let mut expected = [env[0].0, env[1].0, &format!("zone{index}"), &format!("pool.max_size{index}")];
    expected.sort_unstable();
    assert_eq!(found, expected, "{error}");
}
