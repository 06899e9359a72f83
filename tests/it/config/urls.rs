//! The meaning of a URL, and refused URLs.

use pointsman::config::{NodeConfig, Password, TlsMode};

use super::{ENCODED, PASSWORD, keys, read};

#[test]
fn a_url_means_what_it_means_to_libpq() {
    let node = |url: &str| NodeConfig::replica(url).unwrap();

    let full = node(&format!("postgresql://us%40er:{ENCODED}@db.example.com:6432/pay%2Fments"));
    assert_eq!(full.user(), Some("us@er"));
    assert_eq!(full.password().map(Password::expose), Some(PASSWORD));
    assert_eq!((full.host(), full.port()), ("db.example.com", 6432));
    assert_eq!(full.database(), Some("pay/ments"));

    let bare = node("postgres://db");
    assert_eq!((bare.user(), bare.database(), bare.port()), (None, None, 5432));
    assert!(bare.password().is_none());

    let socket = node("postgres://app@/payments?host=/cloudsql/p:europe-west1:db&sslmode=verify-full");
    assert_eq!((socket.host(), socket.port()), ("/cloudsql/p:europe-west1:db", 5432));
    assert_eq!(socket.tls().mode, TlsMode::Disable, "a socket has no TLS");
    assert_eq!(node("postgres://app@%2Fvar%2Frun:6000/a").host(), "/var/run");

    let six = node("postgres://[fe80::1]:5433/a");
    assert_eq!(
        (six.host(), six.name(), six.to_string().as_str()),
        ("fe80::1", "[fe80::1]:5433", "[fe80::1]:5433/a")
    );

    let comma = read("", &[("DATABASE_URL", "postgres://app:a,b@db/a")]).unwrap();
    assert_eq!(comma.nodes()[0].password().map(Password::expose), Some("a,b"));
}

#[test]
fn tls_means_what_it_means_to_libpq() {
    let tls = |query: &str| NodeConfig::replica(format!("postgres://db/a?{query}")).unwrap().tls().clone();
    assert_eq!(tls("").mode, TlsMode::Prefer);
    for mode in [TlsMode::Disable, TlsMode::Prefer, TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull]
    {
        assert_eq!(tls(&format!("sslmode={}", mode.as_str())).mode, mode);
    }
    let rooted = tls("sslmode=require&sslrootcert=/etc/my%20ca.pem");
    assert_eq!(rooted.mode, TlsMode::VerifyCa, "an authority that is named is checked");
    assert_eq!(rooted.root_certificate.unwrap().to_str(), Some("/etc/my ca.pem"));
    let system = tls("sslrootcert=system");
    assert_eq!((system.mode, system.root_certificate), (TlsMode::VerifyFull, None));
    let client = tls("sslcert=/c.pem&sslkey=/k.pem");
    assert_eq!(client.client_certificate.unwrap().to_str(), Some("/c.pem"));
    assert_eq!(client.client_key.unwrap().to_str(), Some("/k.pem"));
}

#[test]
fn a_url_that_would_be_misread_is_refused_with_a_remedy() {
    for (url, problem, remedy) in [
        ("mysql://db/a", "not a PostgreSQL URL", "postgres://"),
        ("host=db dbname=a", "not a PostgreSQL URL", "postgres://"),
        ("'postgres://db/a'", "quotes", "remove the quotes"),
        ("postgres://", "no host", "postgres://"),
        ("postgres:///a", "no host", "?host=/directory"),
        ("postgres://:5432/a", "no host", "postgres://"),
        ("postgres://db-1,db-2/a", "several hosts", "one node per server"),
        ("postgres://db-1/a?host=db-2", "several hosts", "one node per server"),
        ("postgres://db-1/a,b", "name of the database", "comma"),
        ("postgres://db:port/a", "invalid port", "postgres://"),
        ("postgres://db:0/a", "port 0", "5432"),
        ("postgres://db:/a", "without a port", "postgres://"),
        ("postgres://db:?sslmode=disable", "without a port", "postgres://"),
        ("postgres://db:65536/a", "invalid port", "postgres://"),
        ("postgres://d b/a", "space", "%20"),
        ("postgres://app:%FF@db/a", "not UTF-8", "UTF-8"),
        ("postgres://app:p@ss@db/a", "ends the password early", "%40"),
        ("postgres://app:p/ss@db/a", "ends the password early", "%2F"),
        ("postgres://db/a?sslmode=allow", "unknown `sslmode`", "prefer"),
        ("postgres://db/a?sslmode", "without `=`", "name=value"),
        ("postgres://db/a?ssl_mode=disable", "unknown parameter `ssl_mode`", "did you mean `sslmode`"),
        ("postgres://db/a?sslrootcert=", "empty `sslrootcert`", "value"),
        ("postgres://db/a?sslrootcert=system&sslmode=require", "weaker", "verify-full"),
        ("postgres://db/a?sslcert=/c", "only one of", "both"),
        ("postgres://db/a?connect_timeout=soon", "invalid connect_timeout", "postgres://"),
        ("postgres://db/a?target_session_attrs=read-write", "contradicts", "roles are discovered"),
    ] {
        let error = NodeConfig::primary(url).unwrap_err();
        assert_eq!(error.issues().len(), 1, "{url}: {error}");
        let issue = &error.issues()[0];
        assert!(issue.problem.contains(problem), "{url}: {issue}");
        assert!(issue.remedy.contains(remedy), "{url}: {issue}");
    }
}

#[test]
fn all_issues_of_all_urls_are_named() {
    let env = [
        ("DATABASE_URL", "postgres://db-1/a?sslmode=on&pgbouncer=true"),
        ("DATABASE_REPLICA_URL", "postgres://db-2:x/a,postgres://db-3/a,postgres:///a"),
    ];
    let error = read("", &env).unwrap_err();
    assert_eq!(
        keys(&error),
        ["DATABASE_URL", "DATABASE_URL", "DATABASE_REPLICA_URL[0]", "DATABASE_REPLICA_URL[2]"],
        "{error}"
    );
}

/// The error for a URL from another driver was "an unknown parameter (number 1 after the `?`)", without its name.
#[test]
fn an_unknown_parameter_is_named_unless_it_may_be_a_part_of_a_password() {
    for (url, name) in [
        ("postgres://app:walrus@db/a?pgbouncer=true", Some("pgbouncer")),
        ("postgres://app:walrus@db:5432/a?sslmode=disable&connection_limit=5", Some("connection_limit")),
        ("postgres://db/a?schema=public", Some("schema")),
        ("postgres:///a?host=/run/postgresql&statement_timeout=5", Some("statement_timeout")),
        // No parameter is spelled like this.
        ("postgres://app:walrus@db/a?kestrel%21=1", None),
        ("postgres://app:walrus@db/a?Kestrel9=1", None),
        // Without `@`, the colon may be that of a user and a password with a `?` in it.
        ("postgres://app:12?kestrel=1", None),
        // A `&` in a password that is a parameter makes the rest of it look like a name.
        ("postgres://db/a?password=walrus&kestrel=1", None),
        ("postgres://db/a?sslpassword=walrus&kestrel=1", Some("sslpassword")),
    ] {
        let error = NodeConfig::primary(url).unwrap_err();
        let told = error.to_string();
        assert!(!told.contains("estrel") && !told.contains("walrus"), "{url}: {told}");
        match name {
            Some(name) => assert!(told.contains(&format!("unknown parameter `{name}`")), "{url}: {told}"),
            None => assert!(told.contains("unknown parameter (number "), "{url}: {told}"),
        }
    }
}
