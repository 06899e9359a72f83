//! Files that a configuration names: an error has the key and the path.

use pointsman::Config;
use pointsman::config::Password;

use super::{PASSWORD, URL, assert_secret, keys, read};

/// Reads a configuration whose URL has these parameters.
fn with_parameters(parameters: &str) -> Result<Config, pointsman::ConfigError> {
    read("", &[("DATABASE_URL", &format!("{URL}?{parameters}"))])
}

/// `pointsman config check` accepted `sslrootcert=/nope`, and with `sslmode=prefer` the file was never read at all.
#[test]
fn a_certificate_file_that_cannot_be_read_is_an_issue() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let pem = place("good.pem", "-----BEGIN CERTIFICATE-----\n");
    let (text, empty) = (place("text.pem", "no certificate\n"), place("empty.pem", ""));
    let missing = folder.path().join("nope.pem").to_str().unwrap().to_owned();
    let directory = folder.path().to_str().unwrap().to_owned();
    for mode in ["", "sslmode=prefer&", "sslmode=require&", "sslmode=verify-full&"] {
        for (parameter, rest) in [
            ("sslrootcert", String::new()),
            ("sslcert", format!("&sslkey={pem}")),
            ("sslkey", format!("&sslcert={pem}")),
        ] {
            with_parameters(&format!("{mode}{parameter}={pem}{rest}")).unwrap();
            for (path, problem) in
                [(&missing, "not found"), (&directory, "directory"), (&empty, "no PEM"), (&text, "no PEM")]
            {
                let error = with_parameters(&format!("{mode}{parameter}={path}{rest}")).unwrap_err();
                assert_eq!(keys(&error), ["DATABASE_URL"], "{error}");
                let told = &error.issues()[0].problem;
                assert!(
                    told.contains(parameter) && told.contains(path.as_str()) && told.contains(problem),
                    "{error}"
                );
            }
        }
    }
    // Without TLS the files are not read, and libpq doesn't either.
    with_parameters(&format!("sslmode=disable&sslrootcert={missing}")).unwrap();
}

/// A folder of secrets, and a file in it.
fn secret(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

fn passwords(config: &Config) -> Vec<Option<&str>> {
    config.nodes().iter().map(|node| node.password().map(Password::expose)).collect()
}

/// Passwords were in the environment alone, which cannot be changed for a running program.
#[test]
fn a_password_is_read_from_a_file_as_it_is() {
    for (text, password) in [
        (PASSWORD.to_owned(), PASSWORD),
        (format!("{PASSWORD}\n"), PASSWORD),
        (format!("{PASSWORD}\r\n"), PASSWORD),
        (" with spaces \n".to_owned(), " with spaces "),
    ] {
        let (_folder, path) = secret(&text);
        let simple = [
            ("DATABASE_URL", "postgres://app@db-1/a"),
            ("DATABASE_REPLICA_URL", "postgres://app@db-2/a,postgres://report:own@db-3/a"),
            ("DATABASE_PASSWORD_FILE", &path),
        ];
        let config = read("", &simple).unwrap();
        assert_eq!(passwords(&config), [Some(password), Some(password), Some("own")]);
        let nodes = format!(
            "[[nodes]]\nurl = \"postgres://app@db-1/a\"\nrole = \"primary\"\npassword_file = \"{path}\""
        );
        let config = read(&nodes, &[]).unwrap();
        assert_eq!(passwords(&config), [Some(password)]);
        assert_secret(&format!("{config} {config:?}"));
    }
}

#[test]
fn a_url_is_read_from_a_file() {
    let (_folder, one) = secret("postgres://app:one@db-1/a\n");
    let (_folder, several) =
        secret("postgres://app:two@db-2/a\npostgres://app:three@db-3/a,postgres://app:f,our@db-4/a\n");
    let config = read("", &[("DATABASE_URL_FILE", &one), ("DATABASE_REPLICA_URL_FILE", &several)]).unwrap();
    assert_eq!(passwords(&config), [Some("one"), Some("two"), Some("three"), Some("f,our")]);
    let file = format!("database_url_file = \"{one}\"\ndatabase_replica_url_file = \"{several}\"");
    assert_eq!(read(&file, &[]).unwrap(), config);
    let nodes = format!("[[nodes]]\nurl_file = \"{one}\"\nrole = \"primary\"");
    assert_eq!(passwords(&read(&nodes, &[]).unwrap()), [Some("one")]);

    let (_folder, wrong) = secret("postgres://app:kestrel@db-1:walrus/a\n");
    let error = read("", &[("DATABASE_URL_FILE", &wrong)]).unwrap_err();
    assert_eq!(keys(&error), ["DATABASE_URL_FILE"], "{error}");
    assert_secret(&error.to_string());
}

#[test]
fn a_secret_that_cannot_be_read_names_key_and_path_and_not_the_content() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let missing = folder.path().join("nope").to_str().unwrap().to_owned();
    let nodes = |key: &str, path: &str| {
        let url =
            if key == "url_file" { String::new() } else { "url = \"postgres://app@db/a\"\n".to_owned() };
        read(&format!("[[nodes]]\n{url}role = \"primary\"\n{key} = \"{path}\""), &[])
    };
    let cases = [
        (missing, "not found"),
        (folder.path().to_str().unwrap().to_owned(), "directory"),
        ("/dev/zero".to_owned(), "unsupported"),
        (place("empty", b"\n\n"), "is empty"),
        (place("binary", b"kestrel\xff"), "not UTF-8"),
        (place("large", "kestrel".repeat(10_000).as_bytes()), "larger than 64 KiB"),
    ];
    for (path, problem) in cases.iter().map(|(path, problem)| (path.as_str(), *problem)) {
        let simple = [("DATABASE_URL", "postgres://app@db/a"), ("DATABASE_PASSWORD_FILE", path)];
        for (key, outcome) in [
            ("DATABASE_PASSWORD_FILE", read("", &simple)),
            ("DATABASE_URL_FILE", read("", &[("DATABASE_URL_FILE", path)])),
            ("nodes[0].password_file", nodes("password_file", path)),
            ("nodes[0].url_file", nodes("url_file", path)),
        ] {
            let error = outcome.unwrap_err();
            assert_eq!(keys(&error), [key], "{error}");
            let told = &error.issues()[0].problem;
            assert!(told.contains(path) && told.contains(problem), "{error}");
            assert_secret(&error.to_string());
        }
    }
    let lines = place("lines", b"kestrel\nwalrus\n");
    let error = nodes("password_file", &lines).unwrap_err();
    assert!(error.to_string().contains("several lines"), "{error}");
    assert_secret(&error.to_string());
    // The password itself where its path should be.
    for password in ["kestrel", "/kestrel9X", "kestrel/walrus", PASSWORD] {
        assert_secret(&nodes("password_file", password).unwrap_err().to_string());
    }
}

#[test]
fn secrets_that_contradict_each_other_are_refused() {
    let (_folder, path) = secret("open-sesame");
    let found = |file: &str, env: &[(&str, &str)]| {
        let error = read(file, env).unwrap_err();
        keys(&error).join(" ")
    };
    let url = ("DATABASE_URL", URL);
    assert_eq!(found("", &[url, ("DATABASE_URL_FILE", &path)]), "DATABASE_URL_FILE");
    assert_eq!(
        found("", &[url, ("DATABASE_PASSWORD_FILE", &path)]),
        "DATABASE_PASSWORD_FILE",
        "no node uses it"
    );
    let node = |more: &str| format!("[[nodes]]\nrole = \"primary\"\nurl = \"{URL}\"\n{more} = \"{path}\"");
    assert_eq!(found(&node("url_file"), &[]), "nodes[0]");
    assert_eq!(found(&node("password_file"), &[]), "nodes[0]");
    let beside = node("tags").replace(&format!("tags = \"{path}\""), "");
    assert_eq!(found(&beside, &[("DATABASE_PASSWORD_FILE", &path)]), "DATABASE_PASSWORD_FILE");
}
