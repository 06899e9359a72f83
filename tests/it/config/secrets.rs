//! No password in any error, `Display` or `Debug`, wherever it was put.

use pointsman::config::{NodeConfig, Password};
use pointsman::{Config, ConfigError, TokenKey};
use proptest::prelude::*;

use super::{ENCODED, PASSWORD, URL, assert_secret, keys, read, with_url};

#[test]
fn no_display_or_debug_shows_a_password() {
    let url = format!("postgres://app:{ENCODED}@db/a");
    let builder = Config::builder().primary(&url).replica(format!("postgres://db-2/a?password={ENCODED}"));
    assert_secret(&format!("{builder:?}"));
    let config = builder.build().unwrap();
    assert_secret(&format!("{config} {config:?} {config:#?}"));
    for node in config.nodes() {
        assert_eq!(node.password().map(Password::expose), Some(PASSWORD));
        assert_secret(&format!("{node} {node:?} {:?} {}", node.password(), node.name()));
    }
}

#[test]
fn no_issue_shows_a_password() {
    let mut urls = Vec::new();
    for password in [PASSWORD, ENCODED, "%6bestrel%zz", "%FFkestrel", "kestrel walrus", "kestrel:walrus"] {
        for rest in ["@db/a?sslmode=x", "@db:x/a", "@db,db-2/a", "@/a", "@", "", "/a", "@db/a?tern=1", "@d b"]
        {
            // Without its `@host`, `app:kestrel@walrus/gannet?puffin=1` is a URL with a parameter, and nothing shows
            // otherwise.
            if password == PASSWORD && !rest.contains('@') {
                continue;
            }
            urls.push(format!("postgres://app:{password}{rest}"));
        }
        for parameter in ["password", "pasword", "options", "connect_timeout", "sslmode", "port", "hostaddr"]
        {
            urls.push(format!("postgres://db/a?{parameter}={password}&x=1"));
        }
        urls.push(format!("postgres:/app:{password}@db/a"));
        urls.push(format!("mysql://app:{password}@db/a"));
        urls.push(format!("'postgres://app:{password}@db/a'"));
        urls.push(format!("host=db user=app password={password}"));
        urls.push(format!("host=db user=app password='{password}"));
    }
    let mut refused = 0;
    let mut check = |outcome: Result<Config, ConfigError>| {
        if let Err(error) = outcome {
            refused += 1;
            assert_secret(&format!("{error} {error:?}"));
        }
    };
    for url in &urls {
        // Where a URL belongs …
        check(read("", &[("DATABASE_URL", url)]));
        check(with_url("", &[("DATABASE_REPLICA_URL", &format!("postgres://db-2/a,{url},{url}"))]));
        check(read(&format!("database_url = \"{url}\"\nx = 1"), &[]));
        check(read(&format!("[[nodes]]\nurl = \"{url}\"\nx = 1"), &[]));
        check(Config::builder().primary(url).build());
        // … where it doesn't …
        for key in ["ZONE", "APPLICATION_NAME", "POOL__MAX_SIZE", "PROBE__TIMEOUT", "READS__FALLBACK", "X"] {
            check(with_url("", &[(&format!("POINTSMAN_{key}"), url)]));
        }
        check(with_url("", &[("DATABASE_REPLICA_URLS", url)]));
        for key in ["DATABASE_URL_FILE", "DATABASE_REPLICA_URL_FILE", "DATABASE_PASSWORD_FILE"] {
            check(with_url("", &[(key, url)]));
            check(read("", &[(key, url)]));
        }
        for key in ["pool", "nodes", "pool.max_size", "zone", "tags", "reads.prefer_zone", "backoff.jitter"] {
            check(with_url(&format!("{key} = \"{url}\""), &[]));
            check(with_url(&format!("{key} = [\"{url}\"]"), &[]));
            check(with_url(&format!("{key} = {{ a = \"{url}\" }}"), &[]));
        }
        for key in ["name", "zone", "role", "weight", "tags", "url_env", "url_file", "password_file", "x"] {
            check(read(&format!("[[nodes]]\nurl = \"{URL}\"\nrole = \"primary\"\n{key} = \"{url}\""), &[]));
        }
        // … as a key …
        check(with_url(&format!("\"{url}\" = 1"), &[]));
        check(with_url("", &[(&format!("POINTSMAN_{url}"), "1")]));
        // … and in a file that isn't TOML.
        check(read(&format!("database_url = {url}"), &[]));
        check(read(&format!("database_url = \"{url}"), &[]));
        check(read(&format!("database_url = \"{url}\"\ndatabase_url = \"{url}\""), &[]));
        check(read(&format!("database_url = \"{url}\\q\""), &[]));
    }
    assert!(refused > urls.len() * 25, "the URLs are invalid: {refused} of {}", urls.len());
}

#[test]
fn a_token_key_comes_from_the_configuration_or_a_file_and_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        let path = folder.path().join("key");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let key = TokenKey::new(PASSWORD).unwrap();
    let path = file(&format!("{PASSWORD}\n"));
    for config in [
        with_url("", &[("POINTSMAN_CAUSAL__TOKEN_KEY", PASSWORD)]),
        with_url(&format!("[causal]\ntoken_key = \"{PASSWORD}\""), &[]),
        with_url("", &[("POINTSMAN_CAUSAL__TOKEN_KEY_FILE", &path)]),
        Config::builder().primary(super::URL).token_key(key.clone()).build(),
    ] {
        let config = config.unwrap();
        assert_eq!(config.token_key(), Some(&key));
        assert_secret(&format!("{config} {config:?} {config:#?}"));
    }
    assert_eq!(with_url("", &[]).unwrap().token_key(), None);

    // Too short, beside each other, and the key where the path belongs.
    let short = file("kestrel walrus");
    for env in [
        &[("POINTSMAN_CAUSAL__TOKEN_KEY", "kestrel walrus")][..],
        &[("POINTSMAN_CAUSAL__TOKEN_KEY_FILE", &short)],
        &[("POINTSMAN_CAUSAL__TOKEN_KEY", PASSWORD), ("POINTSMAN_CAUSAL__TOKEN_KEY_FILE", &short)],
        &[("POINTSMAN_CAUSAL__TOKEN_KEY_FILE", PASSWORD)],
    ] {
        let error = with_url("", env).unwrap_err();
        assert_eq!(keys(&error), [env[env.len() - 1].0], "{error}");
        assert_secret(&format!("{error} {error:?}"));
    }
}

proptest! {
    #[test]
    fn whatever_surrounds_a_password_it_is_not_shown(
        before in "[ -~äß]{0,6}", after in "[ -~äß]{0,6}", tail in "@db(:[0-9a]{0,3})?(/[ -~]{0,6})?",
    ) {
        let url = format!("postgres://app:{before}kestrel{after}{tail}");
        // Without its `@host`, `app:12/kestrel` is a host, a port and a database, and nothing shows otherwise.
        for outcome in [
            read("", &[("DATABASE_URL", &url)]),
            with_url("", &[("DATABASE_REPLICA_URL", &url)]),
            read(&format!("database_url = '{url}'"), &[]),
            Config::builder().primary(&url).build(),
        ] {
            match outcome {
                Ok(config) => assert_secret(&format!("{config} {config:?}")),
                Err(error) => assert_secret(&format!("{error} {error:?}")),
            }
        }
    }

    #[test]
    fn an_encoded_password_arrives_as_it_was(password in "\\PC{1,30}") {
        let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let node = NodeConfig::primary(format!("postgres://app:{encoded}@db/a")).unwrap();
        prop_assert_eq!(node.password().map(Password::expose), Some(password.as_str()));
    }

    #[test]
    fn no_input_panics(file in "\\PC{0,60}", name in "[A-Z_]{0,20}", value in "\\PC{0,40}") {
        let _ = with_url(&file, &[(&format!("POINTSMAN_{name}"), &value)]);
        let _ = read(&file, &[("DATABASE_URL", &format!("postgres://{value}"))]);
        let _ = with_url("", &[("POINTSMAN_PROBE__TIMEOUT", &value), ("POINTSMAN_POOL__LIFETIME_JITTER", &value)]);
    }
}
